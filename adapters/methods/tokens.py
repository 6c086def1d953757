"""Textual Inversion: new words are learned, the model stays as it is (Gal et al. 2022, arXiv 2208.01618).

    row(i) = E[i]  for the words of the vocabulary,   token_rows[i - V]  for the new ones

The new rows are a parameter of their own beside the frozen table E (V, D), so no other word can move, whatever the
optimizer does. Merging appends them to the table.
"""

import torch
from torch import nn

from adapters.core import specialize

TABLE = "token_embedding"  # its name in the text encoder


class NewTokens:
    """row(i) = E[i] below V, token_rows[i - V] from V on. Merges to one table (V + n, D)."""

    added = ("token_rows",)

    def setup(self, rows: torch.Tensor) -> None:
        self.token_rows = nn.Parameter(rows)  # (n, D)
        self.num_embeddings += len(rows)

    def forward(self, tokens: torch.Tensor) -> torch.Tensor:
        """tokens (B, L) ids below V + n -> (B, L, D)."""
        new = tokens - len(self.weight)
        known = super().forward(tokens.clamp(max=len(self.weight) - 1))  # (B, L, D)
        return torch.where(new[..., None] < 0, known, self.token_rows[new.clamp(min=0)])

    def merge(self) -> None:
        self.weight = nn.Parameter(torch.cat([self.weight, self.token_rows]), requires_grad=self.weight.requires_grad)


def tokens(model: nn.Module, generator: torch.Generator | None, *, init: str = "0", vectors: int = 1) -> None:
    """`vectors` new rows of the token table train, all copies of row `init`, or of the mean of several ("320+2368").

    The new ids follow those of the table. Raises ValueError for a row that is not there, fewer than one vector, or a
    model without a token table.
    """
    table = next((layer for name, layer in model.named_modules() if name.split(".")[-1] == TABLE), None)
    if table is None:
        raise ValueError(f"it adds rows to a token table, and this {type(model).__name__} has none")
    if vectors < 1:
        raise ValueError(f"needs vectors >= 1, found {vectors}")
    ids = init.split("+")
    if not all(i.isdigit() and int(i) < table.num_embeddings for i in ids):
        raise ValueError(f"init is a row of 0 .. {table.num_embeddings - 1}, found {init!r}")
    row = table.weight[[int(i) for i in ids]].detach().mean(0)  # (D,)
    specialize(table, NewTokens, rows=row.repeat(vectors, 1))

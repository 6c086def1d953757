"""The modulations of a sampling run, computed at once for all of its steps and labels.

(shift, scale, gate) = Linear(SiLU(c)) depends on the step and the label alone, and the Linears are a third of a DiT's
weights. A run of S steps with L labels reads S L rows of them: they are computed in one product for each block, and the
weights can go.
"""

from collections.abc import Iterable

import torch
from torch import Tensor, nn

from dit.embed import TimestepEmbedder
from dit.model import DiT


class Number(nn.Module):
    """The place of each value in a sorted table, times `stride`. Raises ValueError for a value that is not in it."""

    def __init__(self, values: Tensor, stride: int):
        super().__init__()
        self.stride = stride
        self.register_buffer("values", values, persistent=False)

    def forward(self, value: Tensor, dtype: torch.dtype | None = None) -> Tensor:
        """value (B,) -> (B,) integers. dtype: that of an embedding in its place, not read."""
        place = torch.searchsorted(self.values, value).clamp(max=len(self.values) - 1)
        if not value.is_cuda and (self.values[place] != value).any():  # on a GPU the answer would be waited for
            raise ValueError(f"the table has the modulations of {self.values.tolist()}, found {value.tolist()}")
        return self.stride * place


class Rows(nn.Module):
    """Row number c of a table (R, n D), in place of Linear(SiLU(c))."""

    def __init__(self, rows: Tensor):
        super().__init__()
        self.register_buffer("rows", rows, persistent=False)

    def forward(self, c: Tensor) -> Tensor:
        """c (B,) -> (B, n D)."""
        return self.rows[c]


def worthwhile(model: nn.Module, steps: Iterable[int], labels: Iterable[int]) -> bool:
    """Whether the table is smaller than the weights that it replaces: S L rows against D.

    Only of a plain DiT on the 1000-step chain: a flow hears other times than those of its steps, and an embedder with a
    mixin tells them to other layers.
    """
    on_chain = type(model) is DiT and type(model.t_embedder) is TimestepEmbedder and model.objective == "diffusion"
    return on_chain and len(set(steps)) * len(set(labels)) <= model.config.width


@torch.no_grad()
def tabulate(model: DiT, steps: Iterable[int], labels: Iterable[int]) -> DiT:
    """The model for these steps of the 1000-step chain and these class ids alone, in place; returns it."""
    device = model.pos_embed.device
    t, y = (torch.tensor(sorted(set(values)), device=device) for values in (steps, labels))
    c = model.t_embedder(t, model.pos_embed.dtype)[:, None] + model.y_embedder(y)  # (S, L, D)
    for layer in (*model.blocks, model.final_layer):
        layer.adaLN_modulation = Rows(layer.adaLN_modulation(c.flatten(0, 1)))  # (S L, n D)
    model.t_embedder, model.y_embedder = Number(t, len(y)), Number(y, 1)
    return model

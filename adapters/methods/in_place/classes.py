"""The class table trains: one embedding row a class, needed for classes that the base never saw."""

import torch
from torch import nn

TABLE = "y_embedder.embedding_table.weight"  # DiT's name for it


def has_table(model: nn.Module) -> bool:
    """Whether the model has DiT's class table."""
    return TABLE in dict(model.named_parameters())


def classes(model: nn.Module, generator: torch.Generator | None) -> None:
    """c = t_emb + row(y), all rows train. Raises ValueError for a model without a class table."""
    if not has_table(model):
        raise ValueError(f"it trains the class table {TABLE}, and this {type(model).__name__} has none")
    model.get_parameter(TABLE).requires_grad_(True)

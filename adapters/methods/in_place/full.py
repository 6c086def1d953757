"""Full fine-tuning: every parameter trains except those that were built frozen, tables like DiT's pos_embed."""

import torch
from torch import nn

from adapters.core import frozen_names


def full(model: nn.Module, generator: torch.Generator | None) -> None:
    """theta trains, all of it. Raises ValueError if every parameter was frozen before the first attach."""
    frozen = frozen_names(model)
    parameters = [p for name, p in model.named_parameters() if name not in frozen]
    if not parameters:
        raise ValueError(f"nothing to train: all {len(frozen)} parameters were frozen before the first attach")
    for p in parameters:
        p.requires_grad_(True)

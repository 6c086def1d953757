"""BitFit: only the biases train (Ben Zaken et al. 2022, arXiv 2106.10199). No new parameters."""

import torch
from torch import nn

from adapters.core import unfreeze


def bitfit(model: nn.Module, generator: torch.Generator | None) -> None:
    """y = W x + b, b trains: every parameter whose name ends in "bias"."""
    unfreeze(model, r"bias$")

"""Norm tuning: the weight and bias of every norm train, y = w * (x - mean) / std + b.

DiT's LayerNorms have neither, because adaLN scales and shifts after them. They get w = 1 and b = 0 here, which changes
no output, as in FineDiffusion (arXiv 2402.18331) and in the parameter counts of DiffFit (arXiv 2304.06648). The norms
stay plain LayerNorms, now with weights: merging leaves them, and their keys join the state dict.
"""

import torch
from torch import nn

from adapters.core import match


def norm(model: nn.Module, generator: torch.Generator | None) -> None:
    """Train w and b of every LayerNorm and GroupNorm. Raises ValueError for a model without norms."""
    like = next(model.parameters())
    for _, layer in match(model, "", (nn.LayerNorm, nn.GroupNorm)):
        if isinstance(layer, nn.LayerNorm):
            add_affine(layer, like)
        layer.requires_grad_(True)


def add_affine(layer: nn.LayerNorm, like: torch.Tensor) -> None:
    """Give a LayerNorm the weight (all 1) and bias (all 0) that it lacks, with the dtype and device of `like`."""
    if layer.weight is None:
        layer.weight = nn.Parameter(like.new_ones(layer.normalized_shape))
    if layer.bias is None:
        layer.bias = nn.Parameter(like.new_zeros(layer.normalized_shape))
    layer.elementwise_affine = True

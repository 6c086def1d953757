"""Where LoRA's family starts: the layers that a pattern finds, and the two factors of their weights."""

import math

import torch
from torch import nn

from adapters.core import match


def factors(weight: torch.Tensor, rank: int, generator: torch.Generator | None) -> tuple[nn.Parameter, nn.Parameter]:
    """A (r, in) or (r, in, k, k), random, and B (out, r) or (out, r, 1, 1), zero, for a weight."""
    out, *kernel = weight.shape
    # sampled in float32 on the generator's device: one seed gives one adapter on every device and dtype
    down = torch.randn(rank, *kernel, generator=generator, device=generator.device if generator else "cpu") / rank
    return nn.Parameter(down.to(weight)), nn.Parameter(weight.new_zeros(out, rank, *(1 for _ in kernel[1:])))


def layers_for(model: nn.Module, rank: int, alpha: float, targets: str) -> list[nn.Module]:
    """The layers that `targets` finds, or a ValueError if these options or one of the layers will not do."""
    if rank < 1 or not 0 < alpha < math.inf:
        raise ValueError(f"needs rank >= 1 and a finite alpha > 0, found rank {rank}, alpha {alpha}")
    layers = match(model, targets, (nn.Linear, nn.Conv2d))
    for name, layer in layers:
        if getattr(layer, "groups", 1) != 1:
            raise ValueError(f"cannot adapt {name}: a convolution in {layer.groups} groups, only 1 is supported")
    return [layer for _, layer in layers]

"""Random streams that depend on numbers alone, such as (seed, step), and not on what was drawn before."""

import torch
from torch import Tensor


def generator_for(*numbers: int) -> torch.Generator:
    """A CPU generator whose stream is a function of the numbers, for example generator_for(seed, step)."""
    return torch.Generator().manual_seed(fold_in(*numbers))


def fold_in(*numbers: int) -> int:
    """One number of 63 bits from several, mixed by SplitMix64's finaliser (Steele et al. 2014): neighbours differ."""
    state = 0
    for number in numbers:
        state = (state + number + 0x9E3779B97F4A7C15) % 2**64
        state = (state ^ state >> 30) * 0xBF58476D1CE4E5B9 % 2**64
        state = (state ^ state >> 27) * 0x94D049BB133111EB % 2**64
        state ^= state >> 31
    return state % 2**63


def offset_noise(x: Tensor, offset: float, generator: torch.Generator) -> Tensor:
    """N(0, 1) of x's shape (B, C, H, W), and offset * N(0, 1) once for each channel of each image -> as x."""
    eps = torch.randn(x.shape, generator=generator)
    if offset:
        eps = eps + offset * torch.randn(*x.shape[:2], 1, 1, generator=generator)
    return eps.to(x)

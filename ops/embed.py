"""The sinusoidal embedding of a timestep (Vaswani et al. 2017, section 3.5; Ho et al. 2020 for diffusion steps)."""

import math

import torch
from torch import Tensor


def timestep_embedding(t: Tensor, dim: int, max_period: float = 10000, divisor: float | None = None) -> Tensor:
    """emb(t) = [cos(t f), sin(t f)],  f_i = max_period^(-i / divisor),  i = 0 .. dim/2 - 1.

    t (B,) steps of the original chain, integer or fractional -> (B, dim) float32.
    divisor: None means dim/2 (DiT, Stable Diffusion); diffusers' own DiT uses dim/2 - 1.
    Raises ValueError for an odd dim.
    """
    if dim % 2:
        raise ValueError(f"a sinusoidal embedding needs an even width, found {dim}")
    half = dim // 2
    i = torch.arange(half, dtype=torch.float32, device=t.device)
    f = torch.exp(-math.log(max_period) * i / (half if divisor is None else divisor))
    # float32 whatever the model's dtype: bfloat16 cannot tell step 999 from step 1000
    angle = t.float()[:, None] * f  # (B, dim/2)
    return torch.cat([angle.cos(), angle.sin()], dim=1)  # (B, dim)

"""Denoising diffusion implicit models (Song 2021, arXiv 2010.02502)."""

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from sampling.guidance import Denoiser
from sampling.schedule import Schedule


def ddim(
    denoise: Denoiser,
    x: Tensor,
    schedule: Schedule,
    steps: int | Sequence[int],
    noise: Callable[[Tensor], Tensor] | None = None,
    eta: float = 0.0,
    before: Callable[[Tensor, int], Tensor] | None = None,
) -> Tensor:
    """x_prev = sqrt(alpha_bar_prev) x0 + sqrt(1 - alpha_bar_prev - sigma^2) eps + sigma z                    eq. 12
    sigma = eta sqrt((1 - alpha_bar_prev) / (1 - alpha_bar)) sqrt(1 - alpha_bar / alpha_bar_prev)             eq. 16

    eta 0 is deterministic; eta 1 is ddpm with the small variance. The last step ends at alpha_bar_prev =
    schedule.final: 1, in x0, or as Stable Diffusion's at alpha_bar_0.

    x (B,C,H,W): the starting noise, float32. steps: a number, or ascending timesteps. noise(x): a standard normal draw
    of x's shape, needed when eta > 0. before(x, t) changes the latents ahead of the step at t.
    Returns latents (B,C,H,W).
    Raises ValueError for eta outside 0..1, or eta > 0 without noise.
    """
    if not 0 <= eta <= 1:
        raise ValueError(f"eta must be between 0 and 1: got {eta}")
    if eta > 0 and noise is None:
        raise ValueError(f"ddim with eta {eta} draws noise at every step: pass a noise function")
    for c in schedule.chain(steps).backward():
        x = x if before is None else before(x, c.t)
        out = denoise(x, torch.full((len(x),), c.t, device=x.device))
        eps, x0 = schedule.solve(out, x, c.alpha_bar**0.5, (1 - c.alpha_bar) ** 0.5)
        prev = min(c.alpha_bar_prev, schedule.final)  # only the last step's is larger
        sigma = eta * ((1 - prev) / (1 - c.alpha_bar) * (1 - c.alpha_bar / prev)) ** 0.5
        x_prev = prev**0.5 * x0 + (1 - prev - sigma**2) ** 0.5 * eps
        x = x_prev + sigma * noise(x) if sigma > 0 else x_prev
    return x

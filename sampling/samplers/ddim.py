"""Denoising diffusion implicit models (Song 2021, arXiv 2010.02502)."""

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from sampling.guidance import Denoiser
from sampling.schedule import NoisePath


def ddim(
    denoise: Denoiser,
    x: Tensor,
    schedule: NoisePath,
    steps: int | Sequence[int],
    noise: Callable[[Tensor], Tensor] | None = None,
    eta: float = 0.0,
    on_step: Callable[[Tensor, int], Tensor] | None = None,
) -> Tensor:
    """x_prev = alpha_prev x0 + sqrt(sigma_prev^2 - std^2) eps + std z                                         eq. 12
    std = eta sigma_prev / sigma sqrt(beta),     beta = 1 - alpha_bar / alpha_bar_prev on a chain             eq. 16

    std is the paper's sigma_t. eta 0 is deterministic, and on a flow Euler's step; eta 1 is ddpm with the small
    variance. The last step ends at alpha_bar_prev = schedule.final_alpha_bar: 1, in x0, or as Stable Diffusion's at
    alpha_bar_0.

    x (B,C,H,W): the starting noise, float32. steps: a number, or ascending timesteps. noise(x): a standard normal draw
    of x's shape, needed when eta > 0. on_step(x, t) -> the latents that the step at t begins with.
    Returns latents (B,C,H,W).
    Raises ValueError for eta outside 0..1, or eta > 0 without noise.
    """
    if not 0 <= eta <= 1:
        raise ValueError(f"eta must be between 0 and 1, found {eta}")
    if eta > 0 and noise is None:
        raise ValueError(f"ddim with eta {eta} draws noise at every step: pass a noise function")
    for c in schedule.chain(steps, schedule.final_alpha_bar).backward():
        x = x if on_step is None else on_step(x, c.t)
        out = denoise(x, schedule.told(torch.full((len(x),), c.t, device=x.device)))
        eps, x0 = schedule.eps_and_x0(out, x, c.alpha, c.sigma)
        std = eta * (c.variance_prev / c.variance * c.beta) ** 0.5
        x_prev = c.alpha_prev * x0 + (c.variance_prev - std**2) ** 0.5 * eps
        x = x_prev + std * noise(x) if std > 0 else x_prev
    return x

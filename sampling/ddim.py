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
    on_step: Callable[[Tensor, int], Tensor] | None = None,
) -> Tensor:
    """x_prev = alpha_prev x0 + sqrt(1 - alpha_bar_prev - std^2) eps + std z                                  eq. 12
    std = eta sqrt((1 - alpha_bar_prev) / (1 - alpha_bar)) sqrt(1 - alpha_bar / alpha_bar_prev)               eq. 16

    std is the paper's sigma_t. eta 0 is deterministic; eta 1 is ddpm with the small variance. The last step ends at
    alpha_bar_prev = schedule.final_alpha_bar: 1, in x0, or as Stable Diffusion's at alpha_bar_0.

    x (B,C,H,W): the starting noise, float32. steps: a number, or ascending timesteps. noise(x): a standard normal draw
    of x's shape, needed when eta > 0. on_step(x, t) -> the latents that the step at t begins with.
    Returns latents (B,C,H,W).
    Raises ValueError for eta outside 0..1, or eta > 0 without noise.
    """
    if not 0 <= eta <= 1:
        raise ValueError(f"eta must be between 0 and 1, found {eta}")
    if eta > 0 and noise is None:
        raise ValueError(f"ddim with eta {eta} draws noise at every step: pass a noise function")
    for c in schedule.chain(steps).backward():
        x = x if on_step is None else on_step(x, c.t)
        out = denoise(x, torch.full((len(x),), c.t, device=x.device))
        eps, x0 = schedule.eps_and_x0(out, x, c.alpha, c.sigma)
        c = c._replace(alpha_bar_prev=min(c.alpha_bar_prev, schedule.final_alpha_bar))  # only the last step's is larger
        std = eta * ((1 - c.alpha_bar_prev) / (1 - c.alpha_bar) * (1 - c.alpha_bar / c.alpha_bar_prev)) ** 0.5
        x_prev = c.alpha_prev * x0 + (1 - c.alpha_bar_prev - std**2) ** 0.5 * eps
        x = x_prev + std * noise(x) if std > 0 else x_prev
    return x

"""The reverse stochastic differential equation by Euler and Maruyama, as SiT samples (Ma et al. 2024, sec. 3.2)."""

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from sampling.flow import Flow
from sampling.guidance import Denoiser
from sampling.schedule import NoisePath

LAST = 0.04  # of a flow's way is the last step, without noise: SiT's `last_step_size`


def sde_steps(schedule: NoisePath, steps: int) -> list[float]:
    """The ascending timesteps that `sde` visits: on a flow from 0.04 to 1 at equal distances, as SiT does."""
    return schedule.timesteps(steps, LAST) if isinstance(schedule, Flow) else schedule.timesteps(steps)


def sde(
    denoise: Denoiser,
    x: Tensor,
    schedule: NoisePath,
    steps: int | Sequence[float],
    noise: Callable[[Tensor], Tensor],
    on_step: Callable[[Tensor, float], Tensor] | None = None,
    weight: Callable[[float], float] = lambda sigma: sigma,
) -> Tensor:
    """dx = x0 dalpha + eps dsigma + w score h + sqrt(2 w h) z,     score = -eps / sigma,   h = sigma - sigma_prev

    The first two terms are the ODE (heun.py), the others a step of Langevin dynamics, which leaves the density
    of x at each time as it is whatever w >= 0 is. weight: w of sigma; SiT's default is sigma itself. On a flow h is the
    step of its time. The last step takes the drift alone ("Mean" in SiT): it ends in x0 - w eps.

    x (B,C,H,W): the starting noise, float32. steps: a number (see sde_steps), or ascending timesteps. noise(x): a
    standard normal draw of x's shape. on_step(x, t) -> the latents that the step at t begins with.
    Returns latents (B,C,H,W).
    """
    for c in schedule.chain(sde_steps(schedule, steps) if isinstance(steps, int) else steps).backward():
        x = x if on_step is None else on_step(x, c.t)
        out = denoise(x, schedule.told(torch.full((len(x),), c.t, device=x.device)))
        eps, x0 = schedule.eps_and_x0(out, x, c.alpha, c.sigma)
        w, h = weight(c.sigma), c.sigma - c.sigma_prev
        x = x + (c.alpha_prev - c.alpha) * x0 - h * eps - h * w / c.sigma * eps
        if c.variance_prev > 0:
            x = x + (2 * w * h) ** 0.5 * noise(x)
    return x

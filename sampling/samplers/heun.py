"""Heun's method: the probability-flow ODE to second order, with two evaluations a step."""

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from sampling.guidance import Denoiser
from sampling.schedule import NoisePath


def heun(
    denoise: Denoiser,
    x: Tensor,
    schedule: NoisePath,
    steps: int | Sequence[float],
    noise: Callable[[Tensor], Tensor] | None = None,
    on_step: Callable[[Tensor, float], Tensor] | None = None,
) -> Tensor:
    """dx = x0 dalpha + eps dsigma                                        the ODE of any path, x0 and eps as predicted
    x~     = x + dalpha x0 + dsigma eps                                   DDIM's step; on a flow Euler's, x + ds u
    x_prev = x + dalpha (x0 + x0~) / 2 + dsigma (eps + eps~) / 2          on a flow x + ds (u + u~) / 2, as in SiT

    dalpha = alpha_prev - alpha, dsigma = sigma_prev - sigma; x0~ and eps~ are predicted at x~. It is the
    trapezoid rule. A diffusion chain has no timestep for clean data: its last step is x~. Source: Ma et al. 2024 (SiT,
    arXiv 2401.08740), whose code has it for flows.

    x (B,C,H,W): the starting noise, float32. steps: a number, or ascending timesteps. noise is not used: every sampler
    takes the same arguments. on_step(x, t) -> the latents that the step at t begins with.
    Returns latents (B,C,H,W).
    """

    def predict(x: Tensor, t: float, alpha: float, sigma: float) -> tuple[Tensor, Tensor]:
        out = denoise(x, schedule.told(torch.full((len(x),), t, device=x.device)))
        return schedule.eps_and_x0(out, x, alpha, sigma)

    rows = schedule.chain(steps).backward()
    for c, t_prev in zip(rows, [*(row.t for row in rows[1:]), schedule.clean], strict=True):
        x = x if on_step is None else on_step(x, c.t)
        eps, x0 = predict(x, c.t, c.alpha, c.sigma)
        dalpha, dsigma = c.alpha_prev - c.alpha, c.sigma_prev - c.sigma
        if t_prev is not None:
            eps_end, x0_end = predict(x + dalpha * x0 + dsigma * eps, t_prev, c.alpha_prev, c.sigma_prev)
            eps, x0 = (eps + eps_end) / 2, (x0 + x0_end) / 2
        x = x + dalpha * x0 + dsigma * eps
    return x

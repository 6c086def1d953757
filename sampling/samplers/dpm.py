"""DPM-Solver++(2M): the probability-flow ODE in a few steps (Lu 2022, arXiv 2211.01095)."""

import math
from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from sampling.guidance import Denoiser
from sampling.schedule import NoisePath


def half_log_snr(alpha_bar: float, variance: float) -> float:
    """lambda = log(alpha / sigma) of alpha^2 and sigma^2; infinite for clean data, -infinite for noise."""
    share = alpha_bar / (alpha_bar + variance)  # of a diffusion chain alpha_bar itself
    if share == 0:
        return -math.inf
    return math.inf if share == 1 else 0.5 * (math.log(share) - math.log1p(-share))


def dpm(
    denoise: Denoiser,
    x: Tensor,
    schedule: NoisePath,
    steps: int | Sequence[int],
    noise: Callable[[Tensor], Tensor] | None = None,
    on_step: Callable[[Tensor, int], Tensor] | None = None,
) -> Tensor:
    """x_prev = (sigma_prev / sigma) x - alpha_prev (e^-h - 1) D,    h = lambda_prev - lambda               algorithm 2
    D = x0 + (x0 - x0_before) / (2 r),                              r = h_before / h

    x0 is this step's prediction, x0_before the step's before. The first step has no step before it and the last has
    h = infinity: both take D = x0 (first order), so the last step ends in x0. A first step from pure noise
    (alpha_bar 0) has h = infinity too, and the step after it takes D = x0.

    x (B,C,H,W): the starting noise, float32. steps: a number, or ascending timesteps. noise is not used: every sampler
    takes the same arguments. on_step(x, t) -> the latents that the step at t begins with.
    Returns latents (B,C,H,W).
    """
    x0_before, h_before = None, None
    for c in schedule.chain(steps).backward():
        x = x if on_step is None else on_step(x, c.t)
        h = half_log_snr(c.alpha_bar_prev, c.variance_prev) - half_log_snr(c.alpha_bar, c.variance)
        out = denoise(x, schedule.told(torch.full((len(x),), c.t, device=x.device)))
        _, x0 = schedule.eps_and_x0(out, x, c.alpha, c.sigma)
        first_order = x0_before is None or c.alpha_bar_prev == 1
        D = x0 if first_order else x0 + (x0 - x0_before) * (0.5 * h / h_before)
        x = c.sigma_prev / c.sigma * x - c.alpha_prev * math.expm1(-h) * D
        x0_before, h_before = x0, h
    return x

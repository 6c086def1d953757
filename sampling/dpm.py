"""DPM-Solver++(2M): the probability-flow ODE in a few steps (Lu 2022, arXiv 2211.01095)."""

import math
from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from sampling.guidance import Denoiser
from sampling.schedule import Schedule


def half_log_snr(alpha_bar: float) -> float:
    """lambda = log(alpha / sigma), alpha^2 = alpha_bar = 1 - sigma^2; infinite for clean data."""
    return math.inf if alpha_bar == 1 else 0.5 * (math.log(alpha_bar) - math.log1p(-alpha_bar))


def dpm(
    denoise: Denoiser,
    x: Tensor,
    schedule: Schedule,
    steps: int | Sequence[int],
    noise: Callable[[Tensor], Tensor] | None = None,
    before: Callable[[Tensor, int], Tensor] | None = None,
) -> Tensor:
    """x_prev = (sigma_prev / sigma) x - alpha_prev (e^-h - 1) D,    h = lambda_prev - lambda               algorithm 2
    D = x0 + (x0 - x0_before) / (2 r),                              r = h_before / h

    x0 is this step's prediction, x0_before the step's before. The first step has no step before it and the last has
    h = infinity: both take D = x0 (first order), so the last step ends in x0.

    x (B,C,H,W): the starting noise, float32. steps: a number, or ascending timesteps. noise is never drawn: it is there
    because every sampler is called alike. before(x, t) changes the latents ahead of the step at t.
    Returns latents (B,C,H,W).
    """
    x0_before, h_before = None, None
    for c in schedule.chain(steps).backward():
        x = x if before is None else before(x, c.t)
        alpha_prev, sigma_prev, sigma = c.alpha_bar_prev**0.5, (1 - c.alpha_bar_prev) ** 0.5, (1 - c.alpha_bar) ** 0.5
        h = half_log_snr(c.alpha_bar_prev) - half_log_snr(c.alpha_bar)
        out = denoise(x, torch.full((len(x),), c.t, device=x.device))
        _, x0 = schedule.solve(out, x, c.alpha_bar**0.5, sigma)
        first_order = x0_before is None or c.alpha_bar_prev == 1
        D = x0 if first_order else x0 + (x0 - x0_before) * (0.5 * h / h_before)
        x = sigma_prev / sigma * x - alpha_prev * math.expm1(-h) * D
        x0_before, h_before = x0, h
    return x

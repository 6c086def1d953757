"""Ancestral sampling (Ho 2020, arXiv 2006.11239, algorithm 2), on any subset of the steps, with learned variances."""

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from sampling.guidance import Denoiser
from sampling.schedule import NoisePath, learned_log_variance

VARIANCES = ("learned", "small", "large")


def ddpm(
    denoise: Denoiser,
    x: Tensor,
    schedule: NoisePath,
    steps: int | Sequence[int],
    noise: Callable[[Tensor], Tensor],
    variance: str | None = None,
    on_step: Callable[[Tensor, int], Tensor] | None = None,
) -> Tensor:
    """x_prev = mean_x0 x0 + mean_x x_t + std z                       DDPM eq. 7 for the mean, eq. 15 for x0

    std^2: "small" beta_tilde (eq. 7); "large" beta (sec. 3.2); "learned" between the two (Nichol 2021, eq. 15), from
    the network's second half of channels. None: learned if the network has that half, otherwise small.
    x0 is not clipped, for latents have no range; the last step adds no noise.

    x (B,C,H,W): the starting noise, float32. steps: a number, or ascending timesteps. noise(x): a standard normal draw
    of x's shape. on_step(x, t) -> the latents that the step at t begins with. Returns latents (B,C,H,W).
    Raises ValueError for another variance, or for "learned" when the network predicts none.
    """
    if variance not in (None, *VARIANCES):
        raise ValueError(f"variance must be one of {', '.join(VARIANCES)}, found {variance!r}")
    for c in schedule.chain(steps).backward():
        x = x if on_step is None else on_step(x, c.t)
        out = denoise(x, schedule.told(torch.full((len(x),), c.t, device=x.device)))
        _, x0 = schedule.eps_and_x0(out, x, c.alpha, c.sigma)
        _, v = schedule.split(out, x)
        if variance == "learned" and v is None:
            raise ValueError(
                f'variance "learned" needs {2 * x.shape[1]} output channels, the network has '
                f'{out.shape[1]}: use "small" or "large"'
            )
        x_prev = c.mean_x0 * x0 + c.mean_x * x
        if c.variance_prev > 0:
            if v is None or variance in ("small", "large"):
                std = (c.beta if variance == "large" else c.posterior_variance) ** 0.5
            else:
                std = torch.exp(0.5 * learned_log_variance(v, c.log_beta, c.log_posterior))  # (B, C, H, W)
            x_prev = x_prev + std * noise(x)
        x = x_prev
    return x

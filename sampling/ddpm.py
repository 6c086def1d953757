"""Ancestral sampling (Ho 2020, arXiv 2006.11239, algorithm 2), on any subset of the steps, with learned variances."""

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from sampling.guidance import Denoiser
from sampling.schedule import Schedule, learned_log_variance, split

VARIANCES = ("learned", "small", "large")


def ddpm(
    denoise: Denoiser,
    x: Tensor,
    schedule: Schedule,
    steps: int | Sequence[int],
    noise: Callable[[Tensor], Tensor],
    variance: str | None = None,
    before: Callable[[Tensor, int], Tensor] | None = None,
) -> Tensor:
    """x_prev = mean_x0 x0 + mean_x x_t + sigma z                     DDPM eq. 7 for the mean, eq. 15 for x0

    sigma^2: "small" beta_tilde (eq. 7); "large" beta (sec. 3.2); "learned" between the two (Nichol 2021, eq. 15), from
    the network's second half of channels. None: learned if the network has that half, otherwise small.
    x0 is not clipped, for latents have no range; the last step adds no noise.

    x (B,C,H,W): the starting noise, float32. steps: a number, or ascending timesteps. noise(x): a standard normal draw
    of x's shape. before(x, t) changes the latents ahead of the step at t. Returns latents (B,C,H,W).
    Raises ValueError for another variance, or for "learned" when the network predicts none.
    """
    if variance not in (None, *VARIANCES):
        raise ValueError(f"variance must be one of {', '.join(VARIANCES)}: got {variance!r}")
    for c in schedule.chain(steps).backward():
        x = x if before is None else before(x, c.t)
        out = denoise(x, torch.full((len(x),), c.t, device=x.device))
        _, x0 = schedule.solve(out, x, c.alpha_bar**0.5, (1 - c.alpha_bar) ** 0.5)
        _, v = split(out, x)
        if variance == "learned" and v is None:
            raise ValueError(
                f'variance "learned" needs {2 * x.shape[1]} output channels, the network has '
                f'{out.shape[1]}: use "small" or "large"'
            )
        x_prev = c.mean_x0 * x0 + c.mean_x * x
        if c.alpha_bar_prev < 1:
            if v is None or variance in ("small", "large"):
                sigma = (c.beta if variance == "large" else c.posterior_variance) ** 0.5
            else:
                sigma = torch.exp(0.5 * learned_log_variance(v, c.log_beta, c.log_posterior))  # (B, C, H, W)
            x_prev = x_prev + sigma * noise(x)
        x = x_prev
    return x

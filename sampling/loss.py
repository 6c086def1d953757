"""The training objective: squared error of the prediction, plus the variational term that trains a learned variance.

L = E_t w_t |out - target|^2 + L_vb                   L_hybrid of Nichol 2021 (arXiv 2102.09672, eq. 16), as in DiT
"""

import math

import torch
from torch import Tensor

from sampling.huber import Huber
from sampling.schedule import NoisePath, Schedule, gather, learned_log_variance


def gaussian_kl(mean1: Tensor, log_var1: Tensor, mean2: Tensor, log_var2: Tensor) -> Tensor:
    """KL(N(mean1, var1) || N(mean2, var2)), element by element, in nats."""
    gap = (mean1 - mean2) ** 2 * torch.exp(-log_var2)
    return 0.5 * (log_var2 - log_var1 + torch.exp(log_var1 - log_var2) - 1 + gap)


def discretized_nll(x: Tensor, mean: Tensor, log_var: Tensor) -> Tensor:
    """-log of the mass that N(mean, var) puts on x's bin of width 2/255 in [-1, 1] (DDPM eq. 13), in nats.

    The end bins reach to infinity. The mass is floored at 1e-12. DiT approximates the normal distribution function by
    a tanh; here it is exact. All of the same shape.
    """
    scale = torch.exp(-0.5 * log_var)
    upper = torch.special.ndtr((x + 1 / 255 - mean) * scale)
    lower = torch.special.ndtr((x - 1 / 255 - mean) * scale)
    upper = torch.where(x > 0.999, torch.ones_like(upper), upper)
    lower = torch.where(x < -0.999, torch.zeros_like(lower), lower)
    return -torch.log((upper - lower).clamp(min=1e-12))


def variational_bits(out: Tensor, x0: Tensor, x_t: Tensor, t: Tensor, schedule: Schedule) -> Tensor:
    """L_t of the variational bound per sample, mean over C,H,W, in bits -> (B,).

    t > 0: KL(q(x_{t-1} | x_t, x0) || p(x_{t-1} | x_t)), DDPM eq. 5; t = 0: the discretised likelihood, made for pixels
    and kept for latents as DiT does. The predicted mean is detached: only the variance learns from this term.
    out (B,2C,H,W), x0, x_t (B,C,H,W), t (B,).
    """
    prediction, v = schedule.split(out, x_t)
    _, x0_hat = schedule.eps_and_x0_at(prediction.detach(), x_t, t)
    chain = schedule.full
    mean_x0, mean_x, log_beta, log_posterior = (
        gather(table, t, x_t) for table in (chain.mean_x0, chain.mean_x, chain.log_beta, chain.log_posterior)
    )
    mean, mean_hat = mean_x0 * x0 + mean_x * x_t, mean_x0 * x0_hat + mean_x * x_t
    log_var_hat = learned_log_variance(v, log_beta, log_posterior)
    kl = gaussian_kl(mean, log_posterior, mean_hat, log_var_hat).flatten(1).mean(1)  # (B,)
    nll = discretized_nll(x0, mean_hat, log_var_hat).flatten(1).mean(1)  # (B,)
    return torch.where(t == 0, nll, kl) / math.log(2)


def min_snr_weight(snr: Tensor, gamma: float, prediction: str) -> Tensor:
    """min(snr, gamma) as a weight on the x0 error, restated for the prediction (Hang 2023, arXiv 2303.09556).

    eps: / snr; v: / (snr + 1); x0: as it is; u of a flow, whose error is that of x0 / s: times s^2. snr (B,) -> (B,).
    """
    error = {"eps": snr, "v": snr + 1, "x0": torch.ones_like(snr), "flow": (snr.sqrt() + 1) ** 2}
    return snr.clamp(max=gamma) / error[prediction]


def diffusion_loss(
    model_out: Tensor,
    x0: Tensor,
    eps: Tensor,
    x_t: Tensor,
    t: Tensor,
    schedule: NoisePath,
    min_snr: float | None = None,
    weight: Tensor | None = None,
    huber: Huber | None = None,
) -> tuple[Tensor, dict[str, Tensor]]:
    """mean over samples of [w_t mean(weight (out - target)^2) + L_vb], L_vb only where it has a variance value.

    model_out (B,C or 2C,H,W); x0, eps, x_t (B,C,H,W); t (B,). min_snr: the gamma of w_t, None for w_t = 1.
    weight: a map that broadcasts to (B,C,H,W), such as (B,1,H,W); the mean divides by the number of elements, so divide
    the map by its own mean where masked and unmasked images must weigh the same. L_vb takes neither weight.
    huber: takes the place of the squared error, and of "mse" in the log.
    Returns the scalar loss and numbers to log, detached 0-d tensors (float() them only when needed: it waits for the
    device): "mse" without w_t, and "bits" when there is a variational term.
    Raises ValueError if weight does not broadcast.
    """
    model_out = model_out.to(torch.promote_types(model_out.dtype, torch.float32))
    prediction, v = schedule.split(model_out, x_t)
    error = (prediction - schedule.target(x0, eps, t)) ** 2
    if huber is not None:
        error = huber.loss(error, t, schedule)
    if weight is not None:
        if weight.ndim != error.ndim or any(w not in (1, e) for w, e in zip(weight.shape, error.shape, strict=True)):
            raise ValueError(f"a weight of shape {tuple(weight.shape)} does not fit latents of {tuple(error.shape)}")
        error = weight * error
    mse = error.flatten(1).mean(1)  # (B,)
    numbers = {"mse" if huber is None else "huber": mse.mean().detach()}
    loss = mse if min_snr is None else min_snr_weight(schedule.snr(t), min_snr, schedule.prediction) * mse
    if v is not None:
        bits = variational_bits(model_out, x0, x_t, t, schedule)
        numbers["bits"] = bits.mean().detach()
        loss = loss + bits
    return loss.mean(), numbers

"""Reconstruction, the objective of an autoencoder (Rombach et al. 2022, sec. 3.1), with weight on thin and coloured.

    loss = E(x - x') + E(d_1 (x - x')) + E(d_2 (x - x')) + KL * KL(q(z|x) || N(0, 1))
    E(e) = mean e^2 + COLOUR * mean (e - mean of its three channels)^2

The error is squared: an absolute error spends itself on grain that cannot be predicted and lets a scratch vanish, which
is a per mille of the image. d_s are differences of neighbours s apart, which count a line once for every side that it
has. COLOUR weighs what differs between the channels: grain is grey, and without it colour is learned last.
"""

import torch
from torch import Generator, Tensor

from recipes.job import Batch, Loss
from unet import VAE

COLOUR, KL = 10.0, 1e-3


def reconstruction(model: VAE) -> Loss:
    """loss(batch, generator, progress) of batches of images x (B, 3, S, S) in [-1, 1]."""

    def loss(batch: Batch, generator: Generator, progress: float) -> tuple[Tensor, dict]:
        x = batch["x"]
        mean, logvar = (h.float() for h in model.encode(x))  # (B, c, h, w)
        noise = torch.randn(mean.shape, generator=generator).to(mean)
        out = model.decode(model.sample(mean, logvar, noise)).float()  # (B, 3, S, S)
        divergence = gaussian_kl(mean, logvar)
        total = reconstruction_error(x - out) + KL * divergence
        return total, {"mse": (x - out).square().mean().item(), "kl": divergence.item()}

    return loss


def gaussian_kl(mean: Tensor, logvar: Tensor) -> Tensor:
    """KL(N(mean, exp(logvar)) || N(0, 1)) in nats, averaged over all latent values."""
    return 0.5 * (mean.square() + logvar.exp() - 1 - logvar).mean()


def reconstruction_error(error: Tensor) -> Tensor:
    """E of the error (B, 3, S, S) and of its differences one and two pixels apart, down and across."""
    total = coloured_error(error)
    for step in (1, 2):
        total = total + coloured_error(error[..., step:, :] - error[..., :-step, :])
        total = total + coloured_error(error[..., step:] - error[..., :-step])
    return total


def coloured_error(error: Tensor) -> Tensor:
    """mean e^2 + COLOUR * mean (e - mean of its channels)^2, for e (B, 3, H, W)."""
    return error.square().mean() + COLOUR * (error - error.mean(1, keepdim=True)).square().mean()

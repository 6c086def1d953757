"""Denoising, the objective of diffusion models (Ho et al. 2020, arXiv 2006.11239, eq. 14).

    x_t = sqrt(alpha_bar_t) x0 + sqrt(1 - alpha_bar_t) eps,    loss(model(x_t, t, cond), eps or v)

Offset noise adds one number to eps for each channel of each image, noise_offset * N(0, 1), and the sum is predicted:
without it a model hardly changes the mean of an image.
"""

from collections.abc import Callable

from torch import Generator, Tensor, nn

from ops.random import offset_noise
from recipes.job import Batch, Loss
from sampling import Huber, NoisePath, diffusion_loss


def denoising(
    model: nn.Module,
    schedule: Callable[[float], NoisePath],
    noise_offset: float = 0.0,
    min_snr: float = 0.0,
    huber: Huber | None = None,
) -> Loss:
    """loss(batch, generator, progress): the module's equation at one random step t for each latent of the batch.

    The batch holds x0 (B, C, H, W) scaled latents, cond (what the model takes for one), and where they are given
    weight (B, 1, H, W), see sampling.diffusion_loss, and hint (B, ...), see ControlNet. schedule(progress): the noise
    schedule at that share of the training. min_snr: gamma of the min-SNR weight, 0 for none. huber: the robust loss.
    """

    def loss(batch: Batch, generator: Generator, progress: float) -> tuple[Tensor, dict]:
        x0, now = batch["x0"], schedule(progress)
        t = now.random_times(len(x0), generator).to(x0.device)  # (B,)
        eps = offset_noise(x0, noise_offset, generator)
        x_t = now.add_noise(x0, eps, t)
        hint = {"hint": batch["hint"]} if "hint" in batch else {}
        out = model(x_t, now.told(t), batch["cond"], **hint)  # (B, C or 2C, H, W)
        return diffusion_loss(out, x0, eps, x_t, t, now, min_snr or None, batch.get("weight"), huber)

    return loss

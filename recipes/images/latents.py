"""Latents as they are trained on, whatever conditions the model: images encoded once, batches of them, samples.

z0 = scale * (mean + std * noise) of q(z | x)
"""

import hashlib
from collections.abc import Callable

import numpy as np
import torch
from torch import Generator, Tensor

from config.training import Sampling
from data import ImageSet
from data.latents import LatentCache, encode_latents, sample_posterior
from data.transforms import Variant, to_uint8
from ops.device import Compute
from recipes.job import Batch, Batches
from sampling import NoisePath, sample_latents
from unet import VAE
from unet.row import sized


def encode(vae: VAE, images: ImageSet, variants: list[Variant], cache: str, compute: Compute) -> LatentCache:
    """Mean and log-variance of every image in every variant, from the folder `cache` or by the encoder.

    cache: "" keeps them in memory only.
    """
    encoder = [*vae.encoder.parameters(), *vae.quant_conv.parameters()]
    key = hashlib.sha256(b"".join(p.detach().cpu().numpy().tobytes() for p in encoder)).hexdigest()

    @torch.no_grad()
    def run(x: Tensor) -> tuple[Tensor, Tensor]:
        with compute.autocast():
            mean, logvar = vae.encode(x.to(compute.device))
        return mean.float(), logvar.float()

    return encode_latents(images.pixels, variants, run, key + compute.precision, cache or None)


def latent_batches(
    encoded: LatentCache,
    rows: Tensor,
    scale: float,
    null_row: int | None,
    cond_dropout: float,
    maps: dict[str, Tensor] | None = None,
    superclass_row: Tensor | None = None,
    superclass_dropout: float = 0.0,
    table: Tensor | None = None,
) -> Batches:
    """batch(index, generator) -> x0 (B, C, H, W) scaled latents, cond (B, ...), and the maps.

    rows (N,): the row of each image's condition. It becomes `null_row`, if there is one, with probability
    `cond_dropout`, and superclass_row[row] with probability `superclass_dropout`. cond is that row number (B,), or
    where there is a `table` (R, ...) its row there. maps: name -> (N, V, ...), what else every image has in each of
    its V variants, such as the weight of the loss. "sizes" (N, V, 6) among them end the rows of cond (unet/row.py).
    """
    cond_dropout = 0.0 if null_row is None else cond_dropout

    def batch(index: Tensor, generator: Generator) -> Batch:
        variant = torch.randint(encoded.mean.shape[1], (len(index),), generator=generator)
        row = rows[index]
        if null_row is not None or superclass_row is not None:
            chance = torch.rand(len(row), generator=generator)
            if superclass_row is not None:
                replaced = (cond_dropout <= chance) & (chance < cond_dropout + superclass_dropout)
                row = torch.where(replaced, superclass_row[row], row)
            if null_row is not None:
                row = torch.where(chance < cond_dropout, null_row, row)
        x0 = scale * sample_posterior(encoded, index, variant, generator)
        cond = row if table is None else table[row]
        more = {name: values[index, variant] for name, values in (maps or {}).items()}
        if "sizes" in more:
            cond = sized(cond, more.pop("sizes"))
        return {"x0": x0, "cond": cond} | more

    return batch


def sample_images(
    denoiser: Callable,
    numbers: range,
    shape: tuple,
    schedule: NoisePath,
    vae: VAE,
    settings: Sampling,
    seed: int | list[tuple[int, int, int]],
    compute: Compute,
) -> np.ndarray:
    """The samples of these numbers, uint8 (N, S, S, 3): what sample.py gives for the same conditions and seed.

    denoiser, numbers, shape, seed: as in sampling.sample_latents.
    """
    with torch.no_grad(), compute.autocast():
        z = sample_latents(
            denoiser, numbers, shape, schedule, settings.sampler, settings.sample_steps, seed, device=compute.device
        )
        return to_uint8(vae.images(z))

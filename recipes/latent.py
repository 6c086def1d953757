"""What the recipes on latents share, whatever conditions them: images encoded once, batches of them, the loss.

    z_t = sqrt(abar_t) z0 + sqrt(1 - abar_t) eps,    loss(model(z_t, t, cond), eps or v)

Offset noise adds to eps one number for each channel of each image, noise_offset * N(0, 1), and the sum is what is
predicted: without it a model hardly changes the mean of a picture.
"""

import hashlib
from dataclasses import asdict

import torch
from torch import Tensor

import launch
import weights
from data import ImageSet
from data.latents import LatentCache, encode_latents, sample_latents
from recipes import watch
from sampling import diffusion_loss
from unet import VAE


def encode(cfg, vae: VAE, images: ImageSet, options: list, device) -> LatentCache:
    """Mean and log-variance of every image in every variant, from the cache or by the encoder."""
    weights_used = [*vae.encoder.parameters(), *vae.quant_conv.parameters()]
    key = hashlib.sha256(b"".join(p.detach().cpu().numpy().tobytes() for p in weights_used)).hexdigest()

    @torch.no_grad()
    def run(x):
        with torch.autocast(device.type, torch.bfloat16, enabled=launch.bf16(cfg.precision, device)):
            mean, logvar = vae.encode(x.to(device))
        return mean.float(), logvar.float()

    return encode_latents(images.pixels, options, run, key + cfg.precision, cfg.cache or None)


def latent_batches(encoded, labels, scale: float, null: int | None, drop: float, maps=None, above=None, lift=0.0):
    """batch(index, generator) -> x0 (B, C, H, W) scaled latents, y (B,) labels, some of them replaced, and the maps.

    A label y becomes `null`, if there is one, with probability `drop`, and above[y], the row of its superclass, with
    probability `lift`. maps: name -> (N, V, ...), what else every image has in every variant, as the loss's weight.
    """
    drop = 0.0 if null is None else drop

    def batch(index, generator):
        variant = torch.randint(encoded.mean.shape[1], (len(index),), generator=generator)
        y = labels[index]
        if null is not None or above is not None:
            chance = torch.rand(len(y), generator=generator)
            y = y if above is None else torch.where((drop <= chance) & (chance < drop + lift), above[y], y)
            y = y if null is None else torch.where(chance < drop, null, y)
        drawn = {"x0": scale * sample_latents(encoded, index, variant, generator), "y": y}
        return drawn | {name: values[index, variant] for name, values in (maps or {}).items()}

    return batch


def denoising_loss(cfg, model, schedule, generator, x0, cond, weight=None):
    """The module's equation at random steps t, one for each of the scaled latents x0 (B, C, H, W).

    cond (B,) labels, (B, L) token ids or (B, L, D) text states; weight as in diffusion_loss.
    """
    t = torch.randint(len(schedule.alpha_bar), (len(x0),), generator=generator).to(x0.device)
    eps = torch.randn(x0.shape, generator=generator)
    if cfg.noise_offset:
        eps = eps + cfg.noise_offset * torch.randn(*x0.shape[:2], 1, 1, generator=generator)
    eps = eps.to(x0)
    x_t = schedule.add_noise(x0, eps, t)
    return diffusion_loss(model(x_t, t, cond), x0, eps, x_t, t, schedule, cfg.min_snr or None, weight)


def begin(cfg, model) -> None:
    """The adapter files of cfg.init, folded into the model."""
    if cfg.init:
        weights.apply_adapters(model, [(file, 1.0) for file in cfg.init])


@torch.no_grad()
def through(vae: VAE, x: Tensor) -> Tensor:
    """Images (B, 3, S, S) encoded and decoded again: what no sample of a latent model can surpass."""
    means = torch.cat([vae.encode(part)[0] for part in x.split(16)])
    return vae.images(vae.config.scaling_factor * means).clamp(-1, 1)


def settings(cfg) -> dict:
    """The config without what says only where and how often the run was started, and that its looks decide nothing."""
    idle = () if watch.acts(cfg) else ("keep", "stop_corrupted")
    return {key: value for key, value in asdict(cfg).items() if key not in ("out", "resume", *idle)}

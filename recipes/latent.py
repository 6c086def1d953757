"""What the recipes on latents share: images encoded once, and what the autoencoder makes of an image."""
import hashlib
from dataclasses import asdict

import torch
from torch import Tensor

import launch
from data import ImageSet
from data.latents import LatentCache, latents
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

    return latents(images.pixels, options, run, key + cfg.precision, cfg.cache or None)


@torch.no_grad()
def through(vae: VAE, x: Tensor) -> Tensor:
    """Images (B, 3, S, S) encoded and decoded again: what no sample of a latent model can surpass."""
    means = torch.cat([vae.encode(part)[0] for part in x.split(16)])
    return vae.images(vae.config.scaling_factor * means).clamp(-1, 1)


def settings(cfg) -> dict:
    """The config without what says only where and how often the run was started."""
    return {key: value for key, value in asdict(cfg).items() if key not in ("out", "resume")}

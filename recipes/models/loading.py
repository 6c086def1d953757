"""The pretrained models that recipes begin with, in float32 on the device, and new ones with random weights."""

from dataclasses import replace
from typing import NamedTuple

import torch

import weights
from data.source import captions_of
from dit import SIZES, DiT
from ops.device import Compute
from unet import VAE, TextEncoder, Tokenizer, UNet
from unet.sizes import TEXT_ENCODERS, UNETS


class Checkpoint(NamedTuple):
    """A DiT's file, or new:SIZE, and what the file does not say: "" and 0 where nothing is given."""

    model: str
    objective: str = ""
    heads: int = 0


def load_autoencoder(vae: str, compute: Compute) -> VAE:
    """The autoencoder in float32, frozen, on the device."""
    return weights.load(vae, expect="vae", dtype=torch.float32).to(compute.device).requires_grad_(False)


def load_dit(checkpoint: Checkpoint, size: int, vae: VAE, compute: Compute) -> tuple[DiT, int]:
    """The checkpoint's DiT and the image side that it works at: `size` pixels, 0 for its own.

    Raises ValueError for a DiT on latents of another number of channels than the autoencoder's, and for a size that the
    autoencoder does not make.
    """
    model, objective, heads = checkpoint
    if size % vae.factor:
        raise ValueError(f"--size must be a multiple of {vae.factor} pixels for this autoencoder, found {size}")
    given = ({"input_size": size // vae.factor} if size else {}) | ({"heads": heads} if heads else {})
    try:
        dit = weights.load(model, expect="dit", dtype=torch.float32, objective=objective or None, **given)
    except ValueError as error:
        reason = str(error).partition("do not fit a DiTConfig: ")[2]
        told = f"--size {size} is {size // vae.factor} latents a side: {reason}" if reason else str(error)
        raise ValueError(told.replace("give heads=", "give --heads")) from None
    if dit.config.in_channels != vae.config.latent_channels:
        raise ValueError(
            f"{model} works on latents of {dit.config.in_channels} channels, the autoencoder makes "
            f"{vae.config.latent_channels}"
        )
    return dit.to(compute.device), dit.config.input_size * vae.factor


def new_dit(checkpoint: Checkpoint, vae: VAE, side: int, classes: list[str]) -> DiT:
    """new:SIZE, a DiT of one of the named sizes with random weights, for images of `side` pixels: a diffusion model
    where no other objective is given."""
    name = checkpoint.model.removeprefix("new:")
    if name not in SIZES:
        raise ValueError(f"unknown size {name!r}; new models are {', '.join('new:' + size for size in SIZES)}")
    shape = {"input_size": side // vae.factor, "in_channels": vae.config.latent_channels}
    dit = DiT.from_name(name, num_classes=len(classes), **shape)
    dit.classes, dit.objective = classes, checkpoint.objective or "diffusion"
    return dit


def load_sd(model: str, compute: Compute, inpainting: bool = False) -> weights.StableDiffusion:
    """The Stable Diffusion of a checkpoint in float32 on the device, its autoencoder frozen.

    inpainting: whether it may be one that reads masks. Of a file with raw and averaged weights it takes the raw ones,
    which training goes on from.
    """
    return placed(weights.load_sd(model, dtype=torch.float32, ema=False, inpainting=inpainting), compute)


def new_sd(model: str, vae: str, data: str, template: str, compute: Compute) -> weights.StableDiffusion:
    """new:SD-T: UNet-T and Text-T with random weights, a vocabulary learned from the captions of `data`, and `vae`."""
    if model != "new:SD-T":
        raise ValueError(f"unknown size {model.removeprefix('new:')!r}; a new Stable Diffusion is new:SD-T")
    autoencoder = weights.load(vae, expect="vae", dtype=torch.float32)
    channels = autoencoder.config.latent_channels
    shape = replace(UNETS["UNet-T"], in_channels=channels, out_channels=channels)
    tokenizer = Tokenizer.train(captions_of(data, template), TEXT_ENCODERS["Text-T"].vocab_size)
    text = TextEncoder(replace(TEXT_ENCODERS["Text-T"], vocab_size=len(tokenizer)))
    schedule = weights.sd_schedule()
    return placed(weights.StableDiffusion(UNet(shape), text, tokenizer, autoencoder, schedule), compute)


def placed(sd: weights.StableDiffusion, compute: Compute) -> weights.StableDiffusion:
    """The same on the device, its autoencoder frozen."""
    for part in (sd.unet, sd.text, sd.vae):
        part.to(compute.device)
    sd.vae.requires_grad_(False)
    return sd

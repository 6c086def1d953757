"""autoencoder: a VAE is trained on images, by reconstruction (objectives/reconstruct.py).

A new autoencoder sees every image in other colours each time: one that met green ink on glass alone turns it grey on a
nut. Of a checkpoint only the decoder trains, for diffusion models live in the latents that its encoder makes.
"""

from dataclasses import replace
from pathlib import Path

import torch
from torch import Generator, Tensor

import adapters
import weights
from config import Config
from config import training as part
from data.output.grid import grid, save_image
from data.transforms import to_uint8
from ops.device import Compute
from recipes.images.made_of import made_of
from recipes.images.pixels import pixel_batches, train_and_val
from recipes.job import Batch, Batches, HeldOut, Job
from recipes.objectives.reconstruct import reconstruction
from unet.vae import SIZES, VAE


def autoencoder(config: Config, compute: Compute) -> Job:
    """The model is new:VAE-T or another of the named sizes, or a checkpoint. Leaves model.safetensors."""
    settings, base, device = config[part.Images], config[part.Base].model, compute.device
    images, val = train_and_val(settings, config[part.HeldOut].val, settings.size or 64)
    new, name = base.startswith("new:"), base.removeprefix("new:")
    if new and name not in SIZES:
        raise ValueError(f"unknown autoencoder {name!r}; new ones are {', '.join(SIZES)}")
    model = VAE(SIZES[name]) if new else weights.load(base, expect="vae", dtype=torch.float32)
    made = made_of(images, settings.data, {} if new else weights.fingerprint(model))
    specs = config[part.Adapter].adapter
    model = adapters.attach(model.to(device), specs)
    if not new:
        for frozen in (model.encoder, model.quant_conv):
            frozen.requires_grad_(False)
    loss, plain = reconstruction(model), pixel_batches(images, settings.variants())
    held_out = val and HeldOut(pixel_batches(val, settings.variants()[:1]), len(val.names))

    def batch(index: Tensor, generator: Generator) -> Batch:
        drawn = plain(index, generator)
        return drawn | {"x": recoloured(drawn["x"], generator)} if new else drawn

    def evaluate(run: Path, step: int) -> dict:
        if not held_out:
            return {"step": step}
        shown = torch.arange(0, held_out.count, max(1, held_out.count // 16))
        x = held_out.batches(shown, None)["x"]
        with torch.no_grad():
            out = model.decode(model.encode(x.to(device))[0])
        columns = {str(i): [to_uint8(a), to_uint8(b)] for i, (a, b) in enumerate(zip(x, out))}
        save_image(run / "samples" / f"step_{step:06d}.png", grid(columns, ["image", "decoded"]))
        return {"step": step, "val": held_out.loss(loss, device)}

    def finish(run: Path) -> None:
        if new:
            set_scale(model, plain, len(images.names), device)
        weights.save_model(model, run / "model.safetensors", card={"data": settings.data})

    return Job(model, specs, images.names, batch, loss, evaluate, finish, made_of=made)


def recoloured(x: Tensor, generator: torch.Generator) -> Tensor:
    """Every image of x (B, 3, S, S) in [-1, 1] with its channels in random order, each of a strength from 0.6 to 1."""
    order = torch.rand(len(x), 3, generator=generator).argsort(1)  # (B, 3)
    strength = 0.6 + 0.4 * torch.rand(len(x), 3, 1, 1, generator=generator)
    return (x.gather(1, order[..., None, None].expand_as(x)) + 1) * strength - 1


@torch.no_grad()
def set_scale(model: VAE, batch: Batches, count: int, device: torch.device) -> None:
    """scaling_factor = 1 / std of the latents over (at most 1,024 of) the images, as Stable Diffusion's was chosen."""
    index = torch.arange(0, count, -(-count // 1024))
    x = batch(index, torch.Generator().manual_seed(0))["x"].to(device)
    latents = torch.cat([model.encode(images)[0] for images in x.split(64)])
    model.config = replace(model.config, scaling_factor=round(1 / latents.std().item(), 5))

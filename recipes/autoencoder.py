"""Train an autoencoder on images (Rombach et al. 2022, sec. 3.1), weighted towards what is thin or coloured.

    loss = E(x - x') + E(d_1 (x - x')) + E(d_2 (x - x')) + KL * KL(q(z|x) || N(0, 1))
    E(e) = mean e^2 + COLOUR * mean (e - mean of its three channels)^2

Squares, because an absolute error spends itself on grain that cannot be predicted and lets a scratch vanish: it is a
per mille of the picture. d_s are differences of neighbours s apart, which count a line once for every side it has. And
grain is grey: without a weight on what differs between the channels, colour is the last thing that is learned.

A new autoencoder sees every image in other colours each time: one that met green ink on glass alone turns it grey on a
nut.
"""

from dataclasses import replace

import torch
from torch import Tensor

import adapters
import weights
from data.output.grid import grid, save_image
from data.transforms import to_uint8
from recipes import Recipe
from recipes.pixels import augmentations, held_out_loss, pixel_batches, train_and_val
from unet.vae import SIZES, VAE

COLOUR, KL = 10.0, 1e-3


def autoencoder(cfg, device) -> Recipe:
    """Batches of augmented pixels; the model is a VAE, new:VAE-T or a checkpoint. Leaves model.safetensors.

    Of a checkpoint only the decoder trains: diffusion models live in the latents that its encoder makes.
    """
    images, val = train_and_val(cfg, cfg.size or 64)
    new, name = cfg.model.startswith("new:"), cfg.model.removeprefix("new:")
    if new and name not in SIZES:
        raise ValueError(f"unknown autoencoder {name!r}; new ones are {', '.join(SIZES)}")
    model = VAE(SIZES[name]) if new else weights.load(cfg.model, expect="vae", dtype=torch.float32)
    model = adapters.attach(model.to(device), cfg.adapter)
    if not new:
        for part in (model.encoder, model.quant_conv):
            part.requires_grad_(False)

    plain = pixel_batches(images, augmentations(cfg))

    def batch(index, generator):
        drawn = plain(index, generator)
        return drawn | {"x": recoloured(drawn["x"], generator)} if new else drawn

    def loss(batch, generator, progress):
        x = batch["x"]
        mean, logvar = (h.float() for h in model.encode(x))  # (B, c, h, w)
        noise = torch.randn(mean.shape, generator=generator).to(mean)
        out = model.decode(model.sample(mean, logvar, noise)).float()  # (B, 3, S, S)
        divergence = gaussian_kl(mean, logvar)
        total = reconstruction_error(x - out) + KL * divergence
        return total, {"mse": (x - out).square().mean().item(), "kl": divergence.item()}

    def look(run, step):
        if val is None:
            return {"step": step}
        upright = pixel_batches(val, augmentations(cfg)[:1])
        x = upright(torch.arange(0, len(val.names), max(1, len(val.names) // 16)), None)
        with torch.no_grad():
            out = model.decode(model.encode(x["x"].to(device))[0])
        columns = {str(i): [to_uint8(a), to_uint8(b)] for i, (a, b) in enumerate(zip(x["x"], out))}
        save_image(run / "samples" / f"step_{step:06d}.png", grid(columns, ["image", "decoded"]))
        return {"step": step, "val": held_out_loss(upright, loss, len(val.names), device)}

    def finish(run):
        if new:
            set_scale(model, plain, len(images.names), device)
        weights.save_model(model, run / "model.safetensors", card={"data": cfg.data})

    return Recipe(model, cfg.adapter, images.names, batch, loss, look, finish)


def recoloured(x: Tensor, generator: torch.Generator) -> Tensor:
    """Every image of x (B, 3, S, S) in [-1, 1] with its channels in random order, each of a strength from 0.6 to 1."""
    order = torch.rand(len(x), 3, generator=generator).argsort(1)  # (B, 3)
    strength = 0.6 + 0.4 * torch.rand(len(x), 3, 1, 1, generator=generator)
    return (x.gather(1, order[..., None, None].expand_as(x)) + 1) * strength - 1


def gaussian_kl(mean: Tensor, logvar: Tensor) -> Tensor:
    """KL(N(mean, exp(logvar)) || N(0, 1)) in nats, averaged over all latent values."""
    return 0.5 * (mean.square() + logvar.exp() - 1 - logvar).mean()


def reconstruction_error(error: Tensor) -> Tensor:
    """E of the error (B, 3, S, S) and of its differences one and two pixels apart, down and across."""
    total = coloured(error)
    for step in (1, 2):
        total = total + coloured(error[..., step:, :] - error[..., :-step, :])
        total = total + coloured(error[..., step:] - error[..., :-step])
    return total


def coloured(error: Tensor) -> Tensor:
    """mean e^2 + COLOUR * mean (e - mean of its channels)^2, for e (B, 3, H, W)."""
    return error.square().mean() + COLOUR * (error - error.mean(1, keepdim=True)).square().mean()


@torch.no_grad()
def set_scale(model: VAE, batch, count: int, device) -> None:
    """scaling_factor = 1 / std of the latents over (at most 1,024 of) the images, as Stable Diffusion's was chosen."""
    index = torch.arange(0, count, -(-count // 1024))
    x = batch(index, torch.Generator().manual_seed(0))["x"].to(device)
    latents = torch.cat([model.encode(part)[0] for part in x.split(64)])
    model.config = replace(model.config, scaling_factor=round(1 / latents.std().item(), 5))

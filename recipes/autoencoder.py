"""Train an autoencoder on images (Rombach et al. 2022, sec. 3.1), weighted towards what is thin or rare.

    loss = |x - x'|^2 + EDGES * sum_s |grad_s x - grad_s x'|^2 + KL * KL(q(z|x) || N(0, 1)),   means over all values

Squares, because an absolute error spends itself on grain that cannot be predicted and lets a scratch, or the only red
print among grey things, vanish: it is a per mille of the picture. Differences of neighbours, at distance s = 1 and 2,
count a line once for every side it has.
"""
from dataclasses import replace

import torch
from torch import Tensor

import adapters
import weights
from data.grid import grid, save_image
from data.transforms import to_uint8
from unet.vae import SIZES, VAE

from . import Recipe
from .pixels import augmentations, held_out_loss, pixel_batches, train_and_val

EDGES, KL = 1.0, 1e-5


def autoencoder(cfg, device) -> Recipe:
    """Batches of augmented pixels; the model is a VAE, new:VAE-T or a checkpoint. Leaves model.safetensors."""
    images, val = train_and_val(cfg, cfg.size or 64)
    name = cfg.model.removeprefix("new:")
    if cfg.model.startswith("new:") and name not in SIZES:
        raise ValueError(f"unknown autoencoder {name!r}; new ones are {', '.join(SIZES)}")
    new = cfg.model.startswith("new:")
    model = VAE(SIZES[name]) if new else weights.load(cfg.model, expect="vae", dtype=torch.float32)
    model = adapters.attach(model.to(device), cfg.adapter)

    def loss(batch, generator):
        x = batch["x"]
        mean, logvar = (h.float() for h in model.encode(x))                                      # (B, c, h, w)
        noise = torch.randn(mean.shape, generator=generator).to(mean)
        out = model.decode(model.sample(mean, logvar, noise)).float()                            # (B, 3, S, S)
        mse, divergence = (x - out).square().mean(), gaussian_kl(mean, logvar)
        total = mse + EDGES * (edge_error(x, out, 1) + edge_error(x, out, 2)) + KL * divergence
        return total, {"mse": mse.item(), "kl": divergence.item()}

    def look(run, step):
        if val is None:
            return {"step": step}
        plain = pixel_batches(val, augmentations(cfg)[:1])
        x = plain(torch.arange(0, len(val.names), max(1, len(val.names) // 16)), None)
        with torch.no_grad():
            out = model.decode(model.encode(x["x"].to(device))[0])
        columns = {str(i): [to_uint8(a), to_uint8(b)] for i, (a, b) in enumerate(zip(x["x"], out))}
        save_image(run / "samples" / f"step_{step:06d}.png", grid(columns, ["image", "decoded"]))
        return {"step": step, "val": held_out_loss(plain, loss, len(val.names), device)}

    def finish(run):
        set_scale(model, pixel_batches(images, augmentations(cfg)), len(images.names), device)
        weights.save_model(model, run / "model.safetensors", card={"data": cfg.data})

    return Recipe(model, cfg.adapter, images.names, pixel_batches(images, augmentations(cfg)), loss, look, finish)


def gaussian_kl(mean: Tensor, logvar: Tensor) -> Tensor:
    """KL(N(mean, exp(logvar)) || N(0, 1)) in nats, averaged over all latent values."""
    return 0.5 * (mean.square() + logvar.exp() - 1 - logvar).mean()


def edge_error(x: Tensor, out: Tensor, step: int) -> Tensor:
    """Mean (difference of neighbours `step` apart in x - the same in out)^2, both directions."""
    error = x - out
    return ((error[..., step:, :] - error[..., :-step, :]).square().mean()
            + (error[..., step:] - error[..., :-step]).square().mean())


@torch.no_grad()
def set_scale(model: VAE, batch, count: int, device) -> None:
    """scaling_factor = 1 / std of the latents over (at most 1,024 of) the images, as Stable Diffusion's was chosen."""
    index = torch.arange(0, count, -(-count // 1024))
    x = batch(index, torch.Generator().manual_seed(0))["x"].to(device)
    latents = torch.cat([model.encode(part)[0] for part in x.split(64)])
    model.config = replace(model.config, scaling_factor=round(1 / latents.std().item(), 5))

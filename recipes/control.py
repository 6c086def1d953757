"""Draw where a mask says: a ControlNet beside a frozen model (Zhang et al. 2023, arXiv 2302.05543).

    loss(model(z_t, t, cond, hint), eps or v)        hint: the image's mask, turned and mirrored as the image is

For Stable Diffusion the hint is the mask itself, one channel of 0 and 1, read by a copy of the UNet's way down
(unet/control.py). For a DiT it is the latent of the mask as a white shape on black, read by copies of the first blocks
(dit/control.py). The model stays as it is loaded, with the adapter files of `init` folded in: what to draw is learned
before, here only where.
"""

from functools import partial

import numpy as np
import torch
from torch import Tensor

import adapters
import launch
import weights
from data import ImageSet, load
from data.output.grid import grid, save_image
from data.transforms import apply_variant, to_uint8
from dit import ControlledDiT
from recipes import Recipe, class_label, text
from recipes.consistency import rows_of
from recipes.latent import begin, denoising_loss, encode, latent_batches, settings
from recipes.masks import mask_weights
from recipes.pixels import augmentations, transform
from sampling import dit_schedule, draw, guided
from unet import ControlledText, ControlNet, TextConditioned, encode_prompts

SHOWN = 8  # masks in a picture
SPEC = ["control.full"]  # what trains


def control(cfg, device) -> Recipe:
    """A new ControlNet for the DiT or Stable Diffusion of cfg.model, on images with masks.

    Leaves control.safetensors for a DiT, for Stable Diffusion control/, a folder that diffusers opens.
    """
    return (of_captions if weights.is_sd(cfg.model) else of_classes)(cfg, device)


def of_classes(cfg, device) -> Recipe:
    """Beside a DiT, on images of classes that it knows."""
    vae = weights.load(cfg.vae, expect="vae", dtype=torch.float32).to(device).requires_grad_(False)
    base, side = class_label.backbone(cfg, vae, device)
    begin(cfg, base)
    images = masked(cfg, load(cfg.data, transform(cfg, side)))
    rows, scale, options = rows_of(cfg, base, images)[images.labels], vae.config.scaling_factor, augmentations(cfg)
    model = ControlledDiT(base)
    header = {"adapter": SPEC, "base": weights.fingerprint(model)}
    adapters.attach(model, SPEC)
    null = model.null if model.config.class_dropout else None
    hints = scale * encode(cfg, vae, images._replace(pixels=pictures_of(images.masks)), options, device).mean.float()
    maps = {"hint": hints} | mask_weights(cfg, images, options, vae.factor)  # (N, V, C, h, w)
    batch = latent_batches(encode(cfg, vae, images, options, device), rows, scale, null, cfg.drop, maps)
    schedule, shape = dit_schedule(model.noise_schedule), model.latent_shape
    look = watcher(cfg, model, vae, images, rows, null, hints[:, 0], schedule, shape, device)

    def loss(batch, generator, progress):
        return denoising_loss(
            cfg, partial(model, hint=batch["hint"]), schedule, generator, batch["x0"], batch["y"], batch.get("weight")
        )

    def finish(run):
        weights.save_adapter(run / "control.safetensors", model, header | {"config": settings(cfg)})

    return Recipe(model, SPEC, images.names, batch, loss, look, finish)


def of_captions(cfg, device) -> Recipe:
    """Beside a Stable Diffusion, on images with captions."""
    sd = text.load(cfg, device)
    weights.add_words(sd.tokenizer, cfg.init)
    begin(cfg, TextConditioned(sd.unet, sd.text))
    model = ControlledText(sd.unet, sd.text, ControlNet.of(sd.unet, 1, sd.vae.factor))
    adapters.attach(model, SPEC)
    images, captions = text.captioned(cfg, sd, cfg.data)
    images, texts = masked(cfg, images), [item.caption for item in captions.items]

    def maps(cfg, images, options, factor):
        return {"hint": mask_hints(images.masks, options)} | mask_weights(cfg, images, options, factor)

    own, places = text.batcher(cfg, sd, model, device, maps)(images, texts), torch.tensor(captions.places)
    states = encode_prompts(sd.text, sd.tokenizer, [*texts, ""]).float()  # (N + 1, L, D)
    hints = mask_hints(images.masks, augmentations(cfg)[:1])[:, 0]  # (N, 1, S, S)
    look = watcher(
        cfg, model, sd.vae, images, states[:-1], states[-1:], hints, sd.schedule, sd.latent_shape(cfg.size), device
    )

    def batch(index, generator):
        return own(places[index], generator)

    def loss(batch, generator, progress):
        return denoising_loss(
            cfg,
            partial(model, hint=batch["hint"]),
            sd.schedule,
            generator,
            batch["x0"],
            batch["cond"],
            batch.get("weight"),
        )

    def finish(run):
        weights.save_control(model.control, run / "control", "controlnet-diffusers")

    return Recipe(model, SPEC, [images.names[i] for i in places], batch, loss, look, finish)


def masked(cfg, images: ImageSet) -> ImageSet:
    """The images. ValueError if they have no masks, or only empty ones."""
    if images.masks is None or not images.masks.any():
        found = "none" if images.masks is None else "only empty ones"
        raise ValueError(f"the control recipe reads masks, and {cfg.data} has {found}")
    return images


def mask_hints(masks: np.ndarray, options: list) -> Tensor:
    """Masks (N, S, S) of True and False in every variant -> (N, V, 1, S, S) of 1 and 0."""
    plain = torch.from_numpy(masks)[:, None].float()
    return torch.stack([apply_variant(plain, variant, nearest=True) for variant in options], 1)


def pictures_of(masks: np.ndarray) -> np.ndarray:
    """Masks (N, S, S) -> pictures (N, S, S, 3), white on black."""
    return np.repeat(masks[..., None], 3, 3).astype(np.uint8) * 255


def watcher(cfg, model, vae, images: ImageSet, cond: Tensor, null, hints: Tensor, schedule, shape, device):
    """look(run, step): images whose masks show the most, their masks, and what the model draws into these."""
    area = torch.from_numpy(images.masks).flatten(1).sum(1)
    some = area.argsort(descending=True, stable=True)[:SHOWN]
    names = [f"{i} {images.classes[images.labels[index]]}" for i, index in enumerate(some.tolist())]
    numbers = some.repeat_interleave(cfg.count)
    denoiser = guided(
        model, cond[numbers].to(device), null, cfg.guidance if null is not None else 1.0, hint=hints[numbers].to(device)
    )

    def look(run, step):
        with torch.autocast(device.type, torch.bfloat16, enabled=launch.bf16(cfg.precision, device)):
            z = draw(
                denoiser, range(len(numbers)), shape, schedule, cfg.sampler, cfg.sample_steps, cfg.seed, device=device
            )
            drawn = to_uint8(vae.images(z))
        real, masks = images.pixels[some.numpy()], pictures_of(images.masks[some.numpy()])
        columns = {
            name: [real[i], masks[i], *drawn[i * cfg.count : (i + 1) * cfg.count]] for i, name in enumerate(names)
        }
        save_image(run / "samples" / f"step_{step:06d}.png", grid(columns, ["image", "mask"] + ["drawn"] * cfg.count))
        return {"step": step}

    return look

"""control: a ControlNet beside a frozen model learns to draw where a mask says (Zhang et al. 2023, arXiv 2302.05543).

    loss(model(z_t, t, cond, hint), eps or v)        hint: the image's mask, turned and mirrored as the image is

For Stable Diffusion the hint is the mask itself, one channel of 0 and 1, read by a copy of the UNet's encoder
(unet/control.py). For a DiT it is the latent of the mask as a white shape on black, read by copies of the first blocks
(dit/control.py). The model stays as it is loaded, with the adapter files of --init merged into it: what to draw is
learned before, here only where.
"""

from collections.abc import Callable
from pathlib import Path

import torch
from torch import Tensor

import adapters
import weights
from config import Config
from config import training as part
from data.output.grid import grid, save_image
from data.transforms import Variant
from dit import ControlledDiT
from ops.device import Compute
from recipes.conditions.captions import Captions
from recipes.conditions.classes import Classes, known_classes
from recipes.evaluation import by_column
from recipes.job import Job, header_settings
from recipes.latents import sample_images
from recipes.loading import load_sd
from recipes.masks import check_masks, mask_images
from recipes.objectives.denoise import denoising
from recipes.path import training_path
from recipes.sizes import image_sizes
from sampling import batched_cfg
from training.page import NEAREST, beside_nearest
from unet import ControlledText, ControlNet, encode_prompts
from unet.prompt import escape
from unet.row import nothing, sized

SHOWN = 8  # masks in a grid
SPEC = ["control.full"]  # what trains


def control(config: Config, compute: Compute) -> Job:
    """A new ControlNet for a DiT or a Stable Diffusion, on images with masks.

    Leaves control.safetensors for a DiT; for Stable Diffusion control/, a folder that diffusers opens.
    """
    loss_options, captioned = config[part.Denoising], part.Captions in config
    condition = (with_captions if captioned else with_classes)(config, compute)
    adapters.attach(condition.model, SPEC)
    base, schedule = config[part.Base].model, condition.schedule
    path = (lambda progress: schedule) if captioned else training_path(condition.model, base, config[part.Objective])
    loss = denoising(condition.model, path, loss_options.noise_offset, loss_options.min_snr)
    batches = condition.batches(loss_options, hints=True)
    cond, null, hints = (captions_of if captioned else classes_of)(condition)
    evaluate = evaluation(
        condition, cond, null, hints, config[part.Sampling], config[part.Grid].count, config[part.Run].seed
    )

    def finish(run: Path) -> None:
        if captioned:
            weights.save_control(condition.model.control, run / "control", "controlnet-diffusers")
        else:
            header = {"adapter": SPEC, "base": condition.header["base"], "config": header_settings(config)}
            weights.save_adapter(run / "control.safetensors", condition.model, header)

    made_of = condition.made_of(config[part.StartFiles].init)
    return Job(condition.model, SPEC, condition.names, batches, loss, evaluate, finish, made_of=made_of)


def with_classes(config: Config, compute: Compute) -> Classes:
    """A DiT that knows the classes of the images, with a new ControlNet."""
    init, cache, images = config[part.StartFiles].init, config[part.Latents].cache, config[part.Images]
    base, vae = config[part.Base].model, config[part.Autoencoder].vae
    condition = known_classes(base, vae, images, None, init, cache, compute, config[part.Objective].objective)
    check_masks(condition.images, images.data)
    condition.model = ControlledDiT(condition.model)
    condition.header = {"base": weights.fingerprint(condition.model)}
    return condition


def with_captions(config: Config, compute: Compute) -> Captions:
    """A Stable Diffusion with a new ControlNet, and captioned images."""
    sd, init, images = load_sd(config[part.Base].model, compute), config[part.StartFiles].init, config[part.Images]
    template, cache = config[part.Captions].template, config[part.Latents].cache
    condition = Captions(sd, images, template, cache, compute, init=init)
    check_masks(condition.images, images.data)
    condition.model = ControlledText(sd.unet, sd.text, ControlNet.of(sd.unet, 1, sd.vae.factor))
    return condition


def classes_of(condition: Classes) -> tuple[Tensor, int | None, Tensor]:
    """For every image its class row, and its hint (N, C, h, w); the null row between them."""
    return condition.rows[condition.images.labels], condition.null, condition.hints[:, 0]


def captions_of(condition: Captions) -> tuple[Tensor, Tensor, Tensor]:
    """For every image the states of its caption (N, L, D), and its hint (N, 1, S, S); those of no caption between."""
    prompts = [escape(text) for text in condition.texts]
    states = encode_prompts(condition.sd.text, condition.sd.tokenizer, [*prompts, ""]).float()
    cond = sized(states[:-1], image_sizes(condition.images, [Variant()])[:, 0])
    return cond, nothing(states[-1:]), condition.hints[:, 0]


def evaluation(
    condition: Classes | Captions,
    cond: Tensor,
    null: int | Tensor | None,
    hints: Tensor,
    settings: part.Sampling,
    count: int,
    seed: int,
) -> Callable[[Path, int], dict]:
    """evaluate(run, step): the images with the largest masks, their masks, and `count` samples for each.

    cond, hints: of every image, N rows.
    """
    images, compute = condition.images, condition.compute
    area = torch.from_numpy(images.masks).flatten(1).sum(1)
    largest = area.argsort(descending=True, stable=True)[:SHOWN]
    names = [f"{i} {images.classes[images.labels[index]]}" for i, index in enumerate(largest.tolist())]
    rows = largest.repeat_interleave(count)
    guidance = settings.guidance if null is not None else 1.0
    chosen = cond[rows].to(compute.device), hints[rows].to(compute.device)
    denoiser = batched_cfg(condition.model, chosen[0], null, guidance, hint=chosen[1])
    pairs = beside_nearest(images.pixels, compute.device)
    real, masks = images.pixels[largest.numpy()], mask_images(images.masks[largest.numpy()])

    def evaluate(run: Path, step: int) -> dict:
        numbers, shape = range(len(rows)), condition.latent_shape
        samples = sample_images(denoiser, numbers, shape, condition.schedule, condition.vae, settings, seed, compute)
        columns = {name: [real[i], masks[i], *samples[i * count : (i + 1) * count]] for i, name in enumerate(names)}
        picture = grid(columns, ["image", "mask"] + ["sample"] * count)
        save_image(run / "samples" / f"step_{step:06d}.png", picture)
        save_image(run / NEAREST, grid(by_column(names, pairs(samples))))
        return {"step": step}

    return evaluate

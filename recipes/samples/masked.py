"""What is looked at while a model trains on masks: images, their masks, and samples where the masks say."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from config.training import Sampling
from data.lazy import Lazy
from data.output.grid import grid, save_image
from data.transforms import Variant
from recipes.conditions.captions import Captions
from recipes.conditions.classes import Classes
from recipes.images.latents import sample_images
from recipes.images.masks import Computed, areas, mask_images
from recipes.images.sizes import image_sizes
from recipes.samples.evaluation import by_column, check_steps
from sampling import batched_cfg, sample_seeds
from training.page import NEAREST, beside_nearest
from unet import encode_prompts
from unet.row import nothing, sized
from unet.text.prompt import escape

SHOWN = 8  # masks in a grid


def largest(masks: np.ndarray | Lazy) -> Tensor:
    """The numbers of the images with the largest masks (N, S, S), SHOWN at most."""
    return areas(masks).argsort(descending=True, stable=True)[:SHOWN]


def evaluate_masks(
    condition: Classes | Captions,
    cond: Callable[[Tensor], tuple[Tensor, int | Tensor | None]],
    hints: Tensor | Computed,
    settings: Sampling,
    count: int,
    seed: int,
) -> Callable[[Path, int], dict]:
    """evaluate(run, step): the images with the largest masks, their masks, and `count` samples for each.

    cond(rows): the conditions of these images, and the one that guidance leads away from. hints[rows]: what a
    model reads of them.
    """
    check_steps(condition.schedule, settings)
    images, compute = condition.images, condition.compute
    index = largest(images.masks)
    shown = condition.kinds()  # the noise of a sample is that of (seed, class or caption, number), as sample.py's
    seeds = sample_seeds(seed, [shown[row] for row in index.tolist() for _ in range(count)])
    names = [f"{i} {images.classes[images.labels[number]]}" for i, number in enumerate(index.tolist())]
    rows = index.repeat_interleave(count)
    hint = hints[rows].to(compute.device)
    pairs = beside_nearest(images.pixels, compute.device)
    real, masks = images.pixels[index.numpy()], mask_images(images.masks[index.numpy()])

    def evaluate(run: Path, step: int) -> dict:
        numbers, shape = range(len(rows)), condition.latent_shape
        with torch.no_grad(), compute.autocast():
            chosen, null = cond(rows)
        guidance = settings.guidance if null is not None else 1.0
        denoiser = batched_cfg(condition.model, chosen.to(compute.device), null, guidance, hint=hint)
        samples = sample_images(denoiser, numbers, shape, condition.schedule, condition.vae, settings, seeds, compute)
        columns = {name: [real[i], masks[i], *samples[i * count : (i + 1) * count]] for i, name in enumerate(names)}
        picture = grid(columns, ["image", "mask"] + ["sample"] * count)
        save_image(run / "samples" / f"step_{step:06d}.png", picture)
        save_image(run / NEAREST, grid(by_column(names, pairs(samples))))
        return {"step": step}

    return evaluate


def conditions_of(condition: Classes | Captions) -> Callable[[Tensor], tuple[Tensor, int | Tensor | None]]:
    """cond(rows) of evaluate_masks: the images' labels, or their captions as the text encoder reads them by now."""

    def labels(rows: Tensor) -> tuple[Tensor, int | None]:
        return condition.rows[condition.images.labels[rows]], condition.null

    def states(rows: Tensor) -> tuple[Tensor, Tensor]:
        prompts = [escape(condition.texts[row]) for row in rows.tolist()]
        encoded = encode_prompts(condition.model.text, condition.sd.tokenizer, [*prompts, ""]).float()
        return sized(encoded[:-1], sizes[rows]), nothing(encoded[-1:])

    if isinstance(condition, Classes):
        return labels
    sizes = image_sizes(condition.images, [Variant()])[:, 0]
    return states

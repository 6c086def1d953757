"""What is looked at while a model trains: a grid of samples with the same seeds, numbers of them, the held-out loss."""

from collections.abc import Callable
from functools import partial
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from config.training import Features, Sampling, Scores, Stopping
from data.output.grid import grid, save_image, sections
from data.source import tell
from metrics.alignment.scores import load_scorer, means
from metrics.textures.table import features_of
from recipes.conditions.captions import COLUMNS, Captions
from recipes.conditions.classes import Classes
from recipes.job import HeldOut, Loss
from sampling import NoisePath, timesteps_of
from training.monitor import monitor
from training.page import NEAREST, beside_nearest
from training.report import show_and_measure
from unet import VAE

ROWS = 4  # samples of each prompt in the picture at the end


def evaluation(
    condition: Classes | Captions,
    loss: Loss,
    held_out: HeldOut | None,
    settings: Sampling,
    count: int,
    seed: int,
    measure: Callable[[np.ndarray], dict] = lambda samples: {},
) -> Callable[[Path, int], dict]:
    """evaluate(run, step) -> numbers for the log; `count` samples of each column go into run/samples.

    They stand beside their nearest training images in run/nearest.png.

    measure(samples): further numbers, of the samples uint8 (N, S, S, 3), column by column.
    """
    check_steps(condition.schedule, settings)
    if held_out is None:
        tell(
            [
                "without held-out images the samples are compared with the training images alone: no held-out loss, no "
                "distance to real images and no line of real ones beside copies; --val 0.2 holds out a share"
            ]
        )
    pairs = beside_nearest(condition.images.pixels, condition.compute.device)

    def evaluate(run: Path, step: int) -> dict:
        samples = condition.sample_columns(count, settings, seed)
        save_image(run / "samples" / f"step_{step:06d}.png", grid(by_column(condition.columns, samples)))
        save_image(run / NEAREST, grid(by_column(condition.columns, pairs(samples))))
        numbers = {"step": step} | measure(samples)
        with condition.compute.autocast():
            return numbers | ({"val": held_out.loss(loss, condition.compute.device)} if held_out else {})

    return evaluate


def check_steps(schedule: NoisePath, settings: Sampling) -> None:
    """ValueError, before any step of training, for a number of steps that the sampler cannot take on this schedule."""
    try:
        timesteps_of(settings.sampler, schedule, settings.sample_steps)
    except ValueError as error:
        raise ValueError(f"--sample-steps {settings.sample_steps}, --sampler {settings.sampler}: {error}") from None


def watched(
    condition: Classes | Captions, count: int, stopping: Stopping, features: Features, scores: Scores
) -> Callable[[np.ndarray], dict]:
    """measure(samples): how alike samples, `count` a column, are to the training images (training/monitor.py), and
    where there is a scorer its `scores` of them and the number of training `images`, which makes epochs of steps."""
    shown = [name for name in condition.columns for _ in range(count)]
    score = load_scorer(scores.scorer) if scores.scorer else None
    network, decode = features_of(features.features, condition.settings.data), partial(reconstruct, condition.vae)
    likeness = monitor(
        condition.images.pixels, condition.kinds(), shown, stopping.acts, condition.compute.device, network, decode
    )

    def measure(samples: np.ndarray) -> dict:
        scored = {"scores": means(score(samples)), "images": len(condition.names)} if score else {}
        return likeness(samples) | scored

    return measure


def measure_classes(
    run: Path, count: int, condition: Classes, settings: Sampling, seed: int, features: str = ""
) -> None:
    """`count` samples of each class beside the images in run/grid.png, their table in run/metrics.json; 0: none."""
    if not count:
        return

    def sample(labels: Tensor, apart: int) -> np.ndarray:
        return condition.sample(labels, settings, seed + apart)

    through, features = partial(reconstruct, condition.vae), features_of(features, condition.settings.data)
    show_and_measure(run, count, sample, through, condition.images, condition.val, condition.compute.device, features)


def show_captioned(run: Path, condition: Captions, settings: Sampling, seed: int) -> None:
    """run/grid.png: one training image for each of the first captions, and below them samples of the columns."""
    images = {text: [image] for text, image in zip(condition.texts[:COLUMNS], condition.images.pixels[:COLUMNS])}
    samples = grid(by_column(condition.columns, condition.sample_columns(ROWS, settings, seed)))
    save_image(run / "grid.png", sections({"images": grid(images), "samples": samples}, beside=False))


def by_column(columns: list[str], samples: np.ndarray) -> dict[str, list[np.ndarray]]:
    """Samples (N, S, S, 3), column by column, under the names of their columns."""
    count = len(samples) // len(columns)
    return {name: list(samples[i * count : (i + 1) * count]) for i, name in enumerate(columns)}


@torch.no_grad()
def reconstruct(vae: VAE, x: Tensor) -> Tensor:
    """Images (B, 3, S, S) encoded and decoded again: no sample of a latent model can surpass them."""
    means = torch.cat([vae.encode(part)[0] for part in x.split(16)])
    return vae.images(vae.config.scaling_factor * means).clamp(-1, 1)

"""A run watched by its samples: what every evaluation measures, which was the best, when the samples are corrupted.

Early stopping on the training loss does not work for diffusion models: the loss of a step is mostly that of the noise
levels it happened to draw, and it goes on falling while samples are spoiled. So an evaluation measures samples of fixed
seeds. The numbers go to log.jsonl and are read from there again: a resumed run decides as the run left alone.
"""

import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from data.transforms import to_tensor
from metrics.networks import features
from metrics.statistics.corruption import best, deviation, feature_similarity, noise_residual, stage
from training.log import read_log
from weights.formats.published import SHIPPED

KNOWN = 500  # training images that samples are compared with, at most


def monitor(
    pixels: np.ndarray, known: list[str], shown: list[str], decides: bool, device: torch.device
) -> Callable[[np.ndarray], dict]:
    """measure(samples) -> feature similarity and noise residual of samples uint8 (N, S, S, 3), each with its deviation.

    pixels (M, S, S, 3), known: the training images and the class or caption of each. shown: those of the samples, which
    are compared with images of the same, or with all if there is none. The statistics are those of
    metrics/statistics/corruption.py, in features of tiny-features; the residual is a multiple of the images' own.

    {} for a single sample, which does not tell how far another might be from it; ValueError if anything `decides` by
    the numbers.
    """
    if len(shown) < 2:
        if decides:
            raise ValueError(
                "keep best and stop_corrupted need 2 samples in an evaluation to tell noise from change, found 1: "
                "give a higher --count"
            )
        return lambda samples: {}
    network = features.load_classifier(SHIPPED / "tiny-features" / "model.safetensors")[0].to(device)

    def describe(images: np.ndarray) -> tuple[Tensor, Tensor]:
        parts = [to_tensor(images[i : i + 64]).to(device) for i in range(0, len(images), 64)]
        f = torch.cat([features.embed(network, x)[0] for x in parts])  # (N, D)
        return f, torch.cat([noise_residual(x) for x in parts])  # (N,)

    every = -(-len(pixels) // KNOWN)
    train, noise = describe(pixels[::every])
    same = torch.tensor([[name == other for other in known[::every]] for name in shown], device=device)
    same |= ~same.any(1, keepdim=True)  # (N, M)
    usual = same.float() @ noise / same.sum(1)  # (N,)

    def measure(samples: np.ndarray) -> dict:
        f, noise = describe(samples)
        similarity, noise = feature_similarity(f, train, same), noise / usual
        return {
            "feature_similarity": similarity.mean().item(),
            "feature_similarity_deviation": deviation(similarity),
            "noise_residual": noise.mean().item(),
            "noise_residual_deviation": deviation(noise),
        }

    return measure


def measurements(run: Path) -> tuple[list, list, list, list]:
    """Steps, similarities, residuals and their deviations, of all evaluations in the log (statistics/corruption.py)."""
    lines = [line for line in read_log(run) if "feature_similarity" in line]
    names = "step", "feature_similarity", "noise_residual"
    steps, similarities, residuals = ([line[name] for line in lines] for name in names)
    deviations = [(line["feature_similarity_deviation"], line["noise_residual_deviation"]) for line in lines]
    return steps, similarities, residuals, deviations


@torch.no_grad()
def keep_best(run: Path, step: int, parameters: dict[str, Tensor], kept: dict[str, Tensor]) -> None:
    """Into `kept`, if it is not empty, the parameters of this evaluation, the last in the log, if none was better."""
    if kept and best(*measurements(run)) == step:
        for name, tensor in kept.items():
            tensor.copy_(parameters[name])


def is_corrupted(run: Path) -> bool:
    """Whether the evaluations so far show a corruption stage; then it says so."""
    steps = stage(*measurements(run))
    if steps:
        print(f"the samples of step {steps[0]} are corrupted, and the run ends here", file=sys.stderr)
    return steps is not None

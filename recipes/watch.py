"""Watching a run by its samples: what every look measures, which was the best, and when the samples are corrupted.

Early stopping on the training loss does not work for diffusion models: the loss of a step is mostly that of the noise
levels it happened to draw, and it goes on falling while samples are spoiled. So a look measures samples of fixed seeds.
The numbers go to log.jsonl and are read from there again: a resumed run decides as the run left alone.
"""

import sys
from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor

from data.transforms import to_tensor
from metrics.log import read_log
from metrics.networks import features
from metrics.statistics.corruption import best, deviation, feature_similarity, noise_residual, stage
from weights.load import SHIPPED

RECIPES = ("class_label", "text", "dreambooth", "textual_inversion")  # whose looks are measured
KNOWN = 500  # training images that samples are compared with, at most


def check(cfg) -> None:
    """ValueError for settings of the watch that are none, or that the recipe cannot follow."""
    if cfg.keep not in ("last", "best"):
        raise ValueError(f"keep must be last or best, found {cfg.keep!r}")
    if acts(cfg) and cfg.recipe not in RECIPES:
        raise ValueError(
            f"keep best and stop_corrupted go by measured samples, and the recipe {cfg.recipe} measures "
            f"none: it is for {', '.join(RECIPES)}"
        )


def acts(cfg) -> bool:
    """Whether anything depends on what the looks measure."""
    return cfg.keep == "best" or cfg.stop_corrupted


def watcher(cfg, pixels: np.ndarray, known: list[str], shown: list[str], device) -> Callable[[np.ndarray], dict]:
    """measure(samples) -> feature similarity and noise residual of samples uint8 (N, S, S, 3), with their deviations.

    pixels (M, S, S, 3), known: the training images and the class or caption of each; shown: those of the samples, which
    are compared with images of the same, or with all if there is none. See metrics/statistics/corruption.py; the
    features are those of tiny-features, the residual is a multiple of the images' own. {} for a single sample, which
    does not tell how far another might be from it; ValueError if anything depends on it.
    """
    if len(shown) < 2:
        if acts(cfg):
            raise ValueError(
                "keep best and stop_corrupted need 2 samples a look to tell noise from change, found 1: "
                "give a higher --count"
            )
        return lambda samples: {}
    network = features.load_classifier(SHIPPED / "tiny-features" / "model.safetensors")[0].to(device)

    def seen(images) -> tuple[Tensor, Tensor]:
        parts = [to_tensor(images[i : i + 64]).to(device) for i in range(0, len(images), 64)]
        return (
            torch.cat([features.embed(network, x)[0] for x in parts]),  # (N, D)
            torch.cat([noise_residual(x) for x in parts]),
        )  # (N,)

    every = -(-len(pixels) // KNOWN)
    train, grain = seen(pixels[::every])
    same = torch.tensor([[name == other for other in known[::every]] for name in shown], device=device)
    same |= ~same.any(1, keepdim=True)  # (N, M)
    usual = same.float() @ grain / same.sum(1)  # (N,)

    def measure(samples: np.ndarray) -> dict:
        found, left = seen(samples)
        alike, left = feature_similarity(found, train, same), left / usual
        return {
            "feature_similarity": alike.mean().item(),
            "feature_similarity_deviation": deviation(alike),
            "noise_residual": left.mean().item(),
            "noise_residual_deviation": deviation(left),
        }

    return measure


def looks(run) -> tuple[list, list, list, list]:
    """Of the evaluations in run/log.jsonl that measured samples: steps, feature similarities, noise residuals, and the
    deviations of both, as metrics/statistics/corruption.py takes them."""
    lines = [line for line in read_log(run) if "feature_similarity" in line]
    names = ("step", "feature_similarity", "noise_residual")
    deviations = [(line["feature_similarity_deviation"], line["noise_residual_deviation"]) for line in lines]
    return *([line[name] for line in lines] for name in names), deviations


@torch.no_grad()
def keep(run, step: int, parameters: dict[str, Tensor], kept: dict[str, Tensor]) -> None:
    """Into `kept`, if it is not empty, the parameters of this look, the last in the log, if none before was better."""
    if kept and best(*looks(run)) == step:
        for name, tensor in kept.items():
            tensor.copy_(parameters[name])


def corrupted(run) -> bool:
    """Whether the looks so far show a corruption stage; then it says so."""
    found = stage(*looks(run))
    if found:
        print(f"the samples of step {found[0]} are corrupted, and the run ends here", file=sys.stderr)
    return found is not None

"""A run watched by its samples: what every evaluation measures, which was the best, when the samples are corrupted.

Early stopping on the training loss does not work for diffusion models: the loss of a step is mostly that of the noise
levels it happened to draw, and it goes on falling while samples are spoiled. So an evaluation measures samples of fixed
seeds. The numbers go to log.jsonl and are read from there again: a resumed run decides as the run left alone.
"""

import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from data.transforms import to_tensor
from metrics.networks import Network, load_network
from metrics.statistics.corruption import Own, best, deviation, feature_similarity, noise_residual, stage
from metrics.textures.likeness import Likeness
from metrics.textures.table import NAME, PATCHES
from ops.machine.process import by_first
from training.log import read_log

KNOWN = 500  # training images that samples are compared with, at most


def monitor(
    pixels: np.ndarray,
    known: list[str],
    shown: list[str],
    decides: bool,
    device: torch.device,
    features: str = "tiny-features",
    decode: Callable[[Tensor], Tensor] = lambda x: x,
) -> Callable[[np.ndarray], dict]:
    """measure(samples) -> likeness and noise residual of samples uint8 (N, S, S, 3), each with its deviation.

    pixels (M, S, S, 3), known: the training images and the class or caption of each. shown: those of the samples, which
    are compared with images of the same, or with all if there is none. features: "patches" (textures/likeness.py), or a
    network of metrics/networks, in which the similarity is that of statistics/corruption.py. decode: see Likeness.
    The residual is a multiple of the images' own. Beside both stand the numbers of the least like and the noisiest of
    the training images, and by what it was measured.

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
    every = -(-len(pixels) // KNOWN)
    pixels, known = pixels[::every], known[::every]
    same = torch.tensor([[name == other for other in known] for name in shown])
    same |= ~same.any(1, keepdim=True)  # (N, M)
    residual = residuals(pixels, device)  # (M,)
    usual = same.float() @ residual / same.sum(1)  # (N,)
    noisiest = (same * residual / usual[:, None]).max().item()
    unlike = distance_of_patches if features == PATCHES else similarity_in(load_network(features, device))
    likeness = unlike(pixels, known, shown, same, device, decode)

    def measure(samples: np.ndarray) -> dict:
        noise = residuals(samples, device) / usual
        return likeness(samples) | {
            "noise_residual": noise.mean().item(),
            "noise_residual_deviation": deviation(noise),
            "noise_residual_noisiest": noisiest,
        }

    return measure


def residuals(pixels: np.ndarray, device: torch.device) -> Tensor:
    """The noise residual of images uint8 (N, S, S, 3) -> (N,) on the CPU."""
    parts = [to_tensor(pixels[i : i + 64]).to(device) for i in range(0, len(pixels), 64)]
    return torch.cat([noise_residual(x).cpu() for x in parts])


def distance_of_patches(
    pixels: np.ndarray, known: list[str], shown: list[str], same: Tensor, device: torch.device, decode: Callable
) -> Callable[[np.ndarray], dict]:
    """measure(samples) -> their distance of textures, that of the images being 1."""
    distance = Likeness(to_tensor(pixels).to(device), known, shown, decode)

    def measure(samples: np.ndarray) -> dict:
        mean, deviation = distance(to_tensor(samples).to(device))
        numbers = {"patch_distance": mean, "patch_distance_deviation": deviation}
        return numbers | {"patch_distance_farthest": distance.farthest, "measured_in": NAME}

    return measure


def similarity_in(network: Network) -> Callable:
    """As `distance_of_patches`, of the feature similarity in a network."""

    def likeness(pixels: np.ndarray, known: list, shown: list, same: Tensor, *_: object) -> Callable:
        train = network.embed(to_tensor(pixels))  # (M, D)
        among = torch.tensor([[a == b for b in known] for a in known]).fill_diagonal_(False)
        among |= ~among.any(1, keepdim=True)
        own = feature_similarity(train, train, among.fill_diagonal_(False)).min().item() if len(train) > 1 else -1.0

        def measure(samples: np.ndarray) -> dict:
            similarity = feature_similarity(network.embed(to_tensor(samples)), train, same)
            numbers = {"feature_similarity": similarity.mean().item()}
            numbers |= {"feature_similarity_deviation": deviation(similarity), "feature_similarity_least": own}
            return numbers | {"measured_in": network.name}

        return measure

    return likeness


def measurements(run: Path) -> tuple[list, list, list, list, Own]:
    """Steps, similarities, residuals and their deviations, of all evaluations in the log, and the images' own.

    The similarity is minus the distance where patches were compared. Of evaluations measured in two ways, as by an
    older version before a resumption, only those measured as the last one was.
    """
    lines = [line for line in read_log(run) if "noise_residual" in line]
    lines = [line for line in lines if ("patch_distance" in line) == ("patch_distance" in lines[-1])]
    name, sign = ("patch_distance", -1) if lines and "patch_distance" in lines[0] else ("feature_similarity", 1)
    steps, similarities = [line["step"] for line in lines], [sign * line[name] for line in lines]
    residuals = [line["noise_residual"] for line in lines]
    deviations = [(line[f"{name}_deviation"], line["noise_residual_deviation"]) for line in lines]
    own = Own()
    if lines and "noise_residual_noisiest" in lines[-1]:
        least = lines[-1].get(f"{name}_least", -(lines[-1].get(f"{name}_farthest", 0) or float("inf")))
        own = Own(least, -1.0 if sign < 0 else float("inf"), lines[-1]["noise_residual_noisiest"])
    return steps, similarities, residuals, deviations, own


def best_score(run: Path) -> tuple[int, float]:
    """The step of the highest combined score of the run's scorer, the first of equals, and that score.

    Step 0, before which nothing was learned, is never the best. (0, 0.0) without such scores.
    """
    lines = [line for line in read_log(run) if line["step"] and "combined" in line.get("scores", {})]
    scores = {line["step"]: line["scores"]["combined"] for line in lines}
    return max(scores.items(), key=lambda look: look[1], default=(0, 0.0))


def best_step(run: Path) -> int:
    """The step whose samples were best: by the scorer, if it found anything, else by their likeness to the images."""
    step, score = best_score(run)
    return step if score else best(*measurements(run))


@torch.no_grad()
def keep_best(run: Path, step: int, parameters: dict[str, Tensor], kept: dict[str, Tensor]) -> None:
    """Into `kept`, if it is not empty, the parameters of this evaluation, the last in the log, if none was better."""
    if kept and by_first(partial(best_step, run)) == step:
        for name, tensor in kept.items():
            tensor.copy_(parameters[name])


def is_corrupted(run: Path) -> bool:
    """Whether the evaluations so far show a corruption stage; then it says so."""
    steps = stage(*measurements(run))
    if steps:
        print(f"the samples of step {steps[0]} are corrupted, and the run ends here", file=sys.stderr)
    return steps is not None

"""The corruption monitor: samples that become unlike the training images while noise grows in them.

    r(x) = mean over pixels of (x - median_3x3 x)^2       noise residual: what a median takes away; edges stay
    f(x) = max_j cos(phi(x), phi(train_j))                feature similarity to the nearest training image of its class
    evaluation t is corrupted:   f_b - f_t > 3 s_f,  r_t - r_b > 3 s_r,  r_t > max_j r(train_j),   b = argmax_{u<t} f_u

f_t and r_t are means over the N samples of evaluation t. s is the standard deviation of their difference under other
samples: s^2 is the sum of var / N of both evaluations, which is what the bootstrap comes to. All evaluations sample
the same seeds, so the change that other seeds would bring is smaller than s. Samples with no more noise than the
noisiest training image has are not noisy: a smooth base that learns a texture is no corruption. Instead of f, with any
other similarity the rule is the same: without a network, f is minus the distance of textures/likeness.py.

Fine-tuning on few images first makes samples similar to them, then for a while noisy and dissimilar, then copies. The
middle part is the corruption stage (Wu et al. 2024, arXiv 2405.19931), which the training loss does not show. It lasts
from the first corrupted evaluation to the last one before an evaluation that is not corrupted.
"""

import math
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F

SIGMAS = 3.0
ROUNDING = (2 / 255) ** 2 / 12  # energy of what 8 bits round away, in [-1, 1]: no image has a smaller residual


def noise_residual(x: Tensor) -> Tensor:
    """r of images x (N, 3, S, S) in [-1, 1], at least `ROUNDING` -> (N,)."""
    return (x - median(x)).square().mean((1, 2, 3)).clamp(min=ROUNDING)


def median(x: Tensor) -> Tensor:
    """Median of each 3x3 neighbourhood of x (N, C, H, W), border pixels repeated -> (N, C, H, W).

    median of (largest column minimum, median of column medians, smallest column maximum): this compares whole images,
    which is far quicker than sorting at each pixel.
    """
    x = F.pad(x, (1, 1, 1, 1), mode="replicate")  # (N, C, H+2, W+2)
    column = torch.stack([x[..., :-2, :], x[..., 1:-1, :], x[..., 2:, :]])  # (3, N, C, H, W+2)
    lowest, middle, highest = (
        torch.stack([y[..., :-2], y[..., 1:-1], y[..., 2:]])  # (3, N, C, H, W)
        for y in (column.amin(0), median_of_three(column), column.amax(0))
    )
    return median_of_three(torch.stack([lowest.amax(0), median_of_three(middle), highest.amin(0)]))


def median_of_three(x: Tensor) -> Tensor:
    """(3, ...) -> (...)."""
    a, b, c = x
    return torch.maximum(torch.minimum(a, b), torch.minimum(torch.maximum(a, b), c))


def feature_similarity(samples: Tensor, train: Tensor, same: Tensor) -> Tensor:
    """f of features samples (N, D) and train (M, D) -> (N,).

    same (N, M) bool: whether sample and training image are of one class; each sample needs one training image at least.
    """
    cosine = F.normalize(samples) @ F.normalize(train).T  # (N, M)
    return cosine.where(same, -1).max(1).values


def deviation(values: Tensor) -> float:
    """Standard deviation of the mean of values (N,): sqrt(var / N), the bootstrap's in closed form."""
    return (values.double().std(correction=0) / len(values) ** 0.5).item()


class Own(NamedTuple):
    """What the training images are to one another: an evaluation is not blamed, nor praised, for being as they are."""

    least: float = -math.inf  # similarity of the one that is least like the others: below it, no evaluation is the best
    enough: float = math.inf  # similarity of a few of them to the others: above it, all evaluations are as good
    noisiest: float = 0.0  # residual of the noisiest: up to it, none is corrupted


NONE = Own()  # where nothing is known of the training images


def corrupted(
    similarity: list[float], residual: list[float], deviations: list[tuple[float, float]], own: Own = NONE
) -> list[bool]:
    """Whether each evaluation is corrupted, from its similarity, its noise residual and both deviations."""
    flags, b = [], 0
    for t in range(len(similarity)):
        s_f, s_r = (SIGMAS * (x**2 + y**2) ** 0.5 for x, y in zip(deviations[b], deviations[t]))
        noisier = residual[t] - residual[b] > s_r and residual[t] > own.noisiest
        flags.append(similarity[b] - similarity[t] > s_f and noisier)
        b = t if similarity[t] > similarity[b] else b
    return flags


def stage(
    steps: list[int],
    similarity: list[float],
    residual: list[float],
    deviations: list[tuple[float, float]],
    own: Own = NONE,
) -> tuple[int, int] | None:
    """(first, last) step of the corruption stage, the first stage if there are several; None if there is none."""
    flags = corrupted(similarity, residual, deviations, own)
    if True not in flags:
        return None
    first = flags.index(True)
    length = (flags[first:] + [False]).index(False)
    return steps[first], steps[first + length - 1]


def best(
    steps: list[int],
    similarity: list[float],
    residual: list[float],
    deviations: list[tuple[float, float]],
    own: Own = NONE,
) -> int:
    """The step of the highest similarity among evaluations that are not corrupted, the first of equals.

    Of evaluations that are as similar as the images are to one another none is better than another. Step 0, before
    which nothing was learned, is never the best, unless it is the only one. Where all others are corrupted or less
    similar than any image, there is no best, and the last stands for it.
    """
    flags = corrupted(similarity, residual, deviations, own)
    fit = [i for i, step in enumerate(steps) if step > 0 and not flags[i] and similarity[i] >= own.least]
    return steps[max(fit, key=lambda i: min(similarity[i], own.enough)) if fit else -1]

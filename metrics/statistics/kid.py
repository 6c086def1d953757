"""Kernel inception distance: the squared maximum mean discrepancy (Binkowski 2018, arXiv 1801.01401).

    KID = mean_{i != j} k(x_i, x_j) + mean_{i != j} k(y_i, y_j) - 2 mean_{i, j} k(x_i, y_j),   k(x, y) = (x.y / D + 1)^3

Unbiased at any number of images, so it may be negative for equal distributions; it is not clipped.
"""

from collections.abc import Callable

import torch
from torch import Tensor

from metrics.statistics.rows import pair


def kid(x: Tensor, y: Tensor) -> float:
    """Features x (N, D) and y (M, D), N and M at least 2 -> MMD^2, by the unbiased estimator over all pairs."""
    x, y = pair("KID", x, y, (2, 2))
    return mmd(x, y, torch.arange(len(x)), torch.arange(len(y))).item()


def kid_interval(
    x: Tensor, y: Tensor, generator: torch.Generator, size: int | None = None, times: int = 100
) -> tuple[float, float]:
    """Features x (N, D) and y (M, D), N and M at least 3 -> mean and standard deviation of KID over `times` resamples.

    By default a resample is as large as the sets, drawn with replacement. Its deviation is right for sets that differ
    and nearly twice too wide for sets that do not. With a size, as in torch-fidelity, it is min(N, M, size) images of
    each, without replacement: the deviation is then that of KID at so few images, and 0 if they are all of both sets.
    """
    x, y = pair("the deviation of KID", x, y, (3, 3))  # all resamples of two images are the same two
    if size is not None and size < 2:
        raise ValueError(f"KID needs subsets of 2 images at least, found size {size}")
    values = resample(lambda i, j: mmd(x[i], y[j], i, j), (len(x), len(y)), generator, times, size)
    return values.mean().item(), values.std(correction=0).item()


def mmd(x: Tensor, y: Tensor, i: Tensor, j: Tensor) -> Tensor:
    """MMD^2 of x (N, D) and y (M, D) without the pairs of an image with itself, which i (N,) and j (M,) number."""

    def kernel(a, b):
        return (a @ b.T / a.shape[1] + 1) ** 3

    def within(a, index):
        other = index[:, None] != index  # (N, N)
        return kernel(a, a)[other].mean()

    return within(x, i) + within(y, j) - 2 * kernel(x, y).mean()


def resample(
    statistic: Callable[..., Tensor | float],
    counts: tuple[int, ...],
    generator: torch.Generator,
    times: int = 100,
    size: int | None = None,
) -> Tensor:
    """statistic(i, j, ...) on `times` resamples of sets of `counts` images -> (times,) float64.

    size: draw so many, or as many as the smallest set has, without replacement. A draw of one image alone, of a set
    that has others, is drawn again: it holds no pair.
    """

    def draw(n):
        if size is not None:
            return torch.randperm(n, generator=generator, device=generator.device)[: min(size, *counts)]
        index = torch.randint(n, (n,), generator=generator, device=generator.device)
        return index if n == 1 or (index != index[0]).any() else draw(n)

    values = [float(statistic(*(draw(n).cpu() for n in counts))) for _ in range(times)]
    return torch.tensor(values, dtype=torch.float64)

"""Kernel inception distance: the squared maximum mean discrepancy (Binkowski 2018, arXiv 1801.01401).

    KID = mean_{i != j} k(x_i, x_j) + mean_{i != j} k(y_i, y_j) - 2 mean_{i, j} k(x_i, y_j),   k(x, y) = (x.y / D + 1)^3

The estimator is unbiased at any number of images. So it may be negative for equal distributions, and is not clipped.

Its deviation is that over resamples of the images at hand,

    s_b = s(x[i_b]),    i_b: n of n indices drawn with replacement (the bootstrap, Efron 1979), or m < n without

A resample with replacement holds images twice. KID leaves out the pairs of an image with itself, else it would take
these for copies.
"""

from collections.abc import Callable

import torch
from torch import Tensor

from metrics.statistics.rows import pair


def kid(x: Tensor, y: Tensor) -> float:
    """Features x (N, D) and y (M, D) -> MMD^2, by the unbiased estimator over all pairs.

    Raises ValueError for fewer than 2 images, other shapes, NaN and infinity.
    """
    x, y = pair("KID", x, y, (2, 2))
    return mmd(x, y, torch.arange(len(x)), torch.arange(len(y))).item()


def kid_interval(
    x: Tensor, y: Tensor, generator: torch.Generator, size: int | None = None, times: int = 100
) -> tuple[float, float]:
    """Features x (N, D) and y (M, D) -> mean and standard deviation of KID over `times` resamples.

    By default a resample is as large as the sets, with replacement: the deviation is right for sets that differ and
    nearly twice too wide for sets that do not. With `size`, as in torch-fidelity, a resample is min(N, M, size) images
    of each, without replacement: the deviation is that of KID at so few images, and 0 if these are both whole sets.

    Raises ValueError for fewer than 3 images and a size below 2.
    """
    x, y = pair("the deviation of KID", x, y, (3, 3))  # all resamples of two images are the same two
    if size is not None and size < 2:
        raise ValueError(f"KID needs subsets of 2 images at least, found size {size}")
    values = resample(lambda i, j: mmd(x[i], y[j], i, j), (len(x), len(y)), generator, times, size)
    return values.mean().item(), values.std(correction=0).item()


def mmd(x: Tensor, y: Tensor, i: Tensor, j: Tensor) -> Tensor:
    """MMD^2 of x (N, D) and y (M, D) without the pairs of an image with itself; i (N,), j (M,) number the images."""

    def kernel(a: Tensor, b: Tensor) -> Tensor:
        return (a @ b.T / a.shape[1] + 1) ** 3

    def within(a: Tensor, index: Tensor) -> Tensor:
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
    """The values of statistic(i, j, ...) for `times` resamples of sets of `counts` images -> (times,) float64.

    i, j, ... are indices into the sets. size: so many without replacement, or as many as the smallest set has. A
    resample that holds one image of several, again and again, has no pair, and another takes its place.
    """

    def draw(n: int) -> Tensor:
        if size is not None:
            return torch.randperm(n, generator=generator, device=generator.device)[: min(size, *counts)]
        index = torch.randint(n, (n,), generator=generator, device=generator.device)
        return index if n == 1 or (index != index[0]).any() else draw(n)

    values = [float(statistic(*(draw(n).cpu() for n in counts))) for _ in range(times)]
    return torch.tensor(values, dtype=torch.float64)

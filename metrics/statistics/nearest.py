"""Are samples copies? The distance to the nearest training image, beside that of real images held out of training.

    d(x) = min_i || f(x) - f(train_i) ||,  over the training images and all their flips and quarter turns

f is a feature network or the pixels themselves. A generator that copies has smaller distances than real images have;
the share of samples nearer than the nearest 5 % of real held-out images is its copy rate (5 % if it does not copy).
Two more need no held-out images. They set the distance d_1 to the nearest training image, n, against

    authentic:  d_1 > distance of n to its nearest other training image       (Alaa 2021, arXiv 2102.08921: AuthPct)
    ratio:      d_1 / mean(d_1 .. d_k), those to the k nearest training images     (Carlini 2023, arXiv 2301.13188)
"""

import math

import torch
from torch import Tensor

from metrics.statistics.rows import distances, pair


def turned(x: Tensor) -> Tensor:
    """(N, C, S, S) -> (8 N, C, S, S): the four quarter turns of every image and of its mirror image."""
    both = torch.cat([x, x.flip(-1)])
    return torch.cat([both.rot90(quarter, (-2, -1)) for quarter in range(4)])


def nearest(x: Tensor, train: Tensor) -> Tensor:
    """Euclidean distance of each row of x (N, D) to its nearest row of train (M, D) -> (N,)."""
    return torch.cdist(x.double(), train.double()).min(1).values


def copy_report(fake: Tensor, held_out: Tensor, train: Tensor, share: float = 0.05) -> dict[str, float]:
    """Features (N, D) of samples, of real held-out images, of the turned training images -> numbers for the table.

    share: of the real images, those nearest to a training image; samples nearer than these are copies.
    """
    ours, real = nearest(fake, train), nearest(held_out, train)
    return {
        "nearest": ours.median().item(),
        "nearest_real": real.median().item(),
        "copies": (ours < real.quantile(share)).double().mean().item(),
    }


def authentic(fake: Tensor, train: Tensor, views: int = 1) -> Tensor:
    """(N,) 1 where a sample is authentic, 0 where it is a copy: AuthPct is 100 times the mean.

    Features fake (N, D), train (views M, D): M at least 2 images, as `turned` orders their views (8) or plain (1).
    """
    fake, train = pair("authenticity", fake, train, (1, 2 * views))
    to_train = by_image(fake, train, views).min(1)  # (N,)
    apart = by_image(train[: len(train) // views], train, views).fill_diagonal_(math.inf).amin(1)  # (M,)
    return (to_train.values > apart[to_train.indices]).double()


def ratio(fake: Tensor, train: Tensor, k: int = 5, views: int = 1) -> Tensor:
    """d_1 / mean(d_1 .. d_k) in [0, 1] -> (N,): near 0 for copies. Features as of `authentic`, M at least k."""
    fake, train = pair("the ratio", fake, train, (1, k * views))
    near = by_image(fake, train, views).topk(k, largest=False).values  # (N, k)
    return near[:, 0] / near.mean(1).clamp(min=torch.finfo(near.dtype).tiny)  # 0 / 0 of k equal images is a copy


def by_image(x: Tensor, train: Tensor, views: int) -> Tensor:
    """Distance of each row of x (N, D) to each of M images in its nearest view, train (views M, D) -> (N, M)."""
    if len(train) % views:
        raise ValueError(f"expected {views} views of each training image, found {len(train)} in all")
    return distances(x, train).unflatten(1, (views, -1)).amin(1)

"""Are samples copies? The distance to the nearest training image, beside that of real images held out of training.

    d(x) = min_i || f(x) - f(train_i) ||,  over the training images and all their flips and quarter turns

f is a feature network or the pixels themselves. A generator that copies has smaller distances than real images have.
Its copy rate is the share of samples nearer than the nearest 5 % of real held-out images (5 % if it does not copy). Two
more numbers need no held-out images. With d_1 the distance to the nearest training image n:

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
    """Features of samples (N, D), held-out images (M, D) and turned training images (8 T, D) -> rows of the table.

    Samples nearer to a training image than the nearest `share` of held-out images are copies.
    """
    near, real = nearest(fake, train), nearest(held_out, train)
    return {
        "nearest": near.median().item(),
        "nearest_real": real.median().item(),
        "copies": (near < real.quantile(share)).double().mean().item(),
    }


def authentic(fake: Tensor, train: Tensor, views: int = 1) -> Tensor:
    """Features fake (N, D), train (views M, D) -> (N,): 1 for an authentic sample, 0 for a copy. AuthPct is 100 mean.

    views: of each training image, 8 in the order of `turned`, or 1. Raises ValueError for M below 2.
    """
    fake, train = pair("authenticity", fake, train, (1, 2 * views))
    to_train = by_image(fake, train, views).min(1)  # (N,)
    apart = by_image(train[: len(train) // views], train, views).fill_diagonal_(math.inf).amin(1)  # (M,)
    return (to_train.values > apart[to_train.indices]).double()


def ratio(fake: Tensor, train: Tensor, k: int = 5, views: int = 1) -> Tensor:
    """Features as in `authentic` -> d_1 / mean(d_1 .. d_k) (N,), in 0..1: near 0 for copies. ValueError if M < k."""
    fake, train = pair("the ratio", fake, train, (1, k * views))
    near = by_image(fake, train, views).topk(k, largest=False).values  # (N, k)
    return near[:, 0] / near.mean(1).clamp(min=torch.finfo(near.dtype).tiny)  # 0 / 0 counts as a copy


def by_image(x: Tensor, train: Tensor, views: int) -> Tensor:
    """Distances of x (N, D) to M training images, each in its nearest view; train (views M, D) -> (N, M)."""
    if len(train) % views:
        raise ValueError(f"expected {views} views of each training image, found {len(train)} in all")
    return distances(x, train).unflatten(1, (views, -1)).amin(1)

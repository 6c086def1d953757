"""Intra-cluster distance: do samples vary, or repeat the training images (Ojha 2021, arXiv 2104.06820)?

    cluster(c) = samples whose nearest training image is c,    score = mean_c mean_{i < j in cluster(c)} d(x_i, x_j)

d is any distance; the paper's is LPIPS, over at most 50 samples of each of 10 clusters. A generator that returns its
training images has 0, however well it covers them; identical samples count with their 0. A cluster of fewer than two
samples has no distance: the mean leaves it out, and it is counted.
"""

import math

import torch
from torch import Tensor


def intra_cluster(to_train: Tensor, between: Tensor) -> dict[str, float | int]:
    """Distances to T training images (N, T) and between samples (N, N) -> the mean and the numbers of clusters.

    clusters: of two samples at least; single, empty: of one and of none. The mean is nan if `clusters` is 0. Raises
    ValueError for other shapes.
    """
    n = len(to_train)
    if to_train.dim() != 2 or between.shape != (n, n):
        raise ValueError(
            "expected distances (N, T) to training images and (N, N) between samples, found "
            f"{tuple(to_train.shape)} and {tuple(between.shape)}"
        )
    own = to_train.argmin(1).cpu()  # (N,)
    sizes = own.bincount(minlength=to_train.shape[1])  # (T,)
    members = [(own == c).nonzero()[:, 0] for c in (sizes > 1).nonzero()[:, 0]]
    means = [pairwise_diversity(between[i][:, i]) for i in members]
    return {
        "intra_cluster": sum(means) / len(means) if means else math.nan,
        "clusters": len(means),
        "single": (sizes == 1).sum().item(),
        "empty": (sizes == 0).sum().item(),
    }


def pairwise_diversity(between: Tensor) -> float:
    """Distances between samples (N, N) -> their mean over the pairs i < j, zeros included. ValueError for N below 2."""
    n = len(between)
    if n < 2 or between.shape != (n, n):
        raise ValueError(f"expected distances between 2 samples or more, (N, N), found {tuple(between.shape)}")
    i, j = torch.triu_indices(n, n, 1)
    return between[i, j].double().mean().item()

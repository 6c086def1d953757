"""Frechet inception distance: between Gaussians with the moments of two sets (Heusel 2017, arXiv 1706.08500).

    FID = |m1 - m2|^2 + tr(S1 + S2 - 2 (S1 S2)^1/2),    tr (S1 S2)^1/2 = || A1 A2^T ||_*,   S = A^T A

The sum of singular values of A1 A2^T needs no matrix root and nothing added to a singular S (the eigenvalues of a small
matrix: Mathiasen & Hvilshoj 2020, arXiv 2009.14075). A is the centred features over sqrt(N - 1), or where N > D their
triangular factor, so the matrix has min(N, D) x min(M, D) entries.

With few images the number misleads. At N <= D the covariances lack directions, the value is too large by an amount that
differs from model to model (Chong & Forsyth 2019, arXiv 1911.07023), and samples that vary too little can be nearer
than fresh real images. Compare equal N only, in few dimensions, beside the coverage and the distance to the training
images. KID has no such bias.
"""

import torch
from torch import Tensor

from metrics.statistics.rows import pair


def frechet(x: Tensor, y: Tensor) -> float:
    """Features x (N, D) and y (M, D), N and M at least 2 -> FID, with covariances over N - 1 and M - 1."""
    x, y = pair("FID", x, y, (2, 2))
    a, b = root(x), root(y)
    means = (x.mean(0) - y.mean(0)).square().sum()
    spreads = a.square().sum() + b.square().sum() - 2 * torch.linalg.matrix_norm(a @ b.T, "nuc")
    return (means + spreads.clamp(min=0)).item()  # below 0 by rounding only


def root(x: Tensor) -> Tensor:
    """A (min(N, D), D) of A^T A = the covariance of x (N, D)."""
    return torch.linalg.qr(x - x.mean(0), mode="r").R / (len(x) - 1) ** 0.5

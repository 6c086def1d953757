"""Features, one row an image: checked and in float64 on the CPU (MPS has no float64) before statistics compare them."""

import torch
from torch import Tensor


def pair(what: str, x: Tensor, y: Tensor, least: tuple[int, int]) -> tuple[Tensor, Tensor]:
    """Features x (N, D) and y (M, D) -> the same in float64.

    Raises ValueError, with `what`, the name of the statistic, unless they share D, have `least` rows and are finite.
    """
    if x.dim() != 2 or y.dim() != 2 or x.shape[1] != y.shape[1]:
        raise ValueError(f"{what} compares features (N, D) and (M, D), found {tuple(x.shape)} and {tuple(y.shape)}")
    if len(x) < least[0] or len(y) < least[1]:
        raise ValueError(f"{what} needs {least[0]} and {least[1]} images at least, found {len(x)} and {len(y)}")
    if not (x.isfinite().all() and y.isfinite().all()):
        raise ValueError(f"{what} needs finite features, found NaN or infinity")
    return x.cpu().double(), y.cpu().double()


def distances(x: Tensor, y: Tensor) -> Tensor:
    """Euclidean distances between the rows of x (N, D) and y (M, D) -> (N, M); exactly 0 for equal rows."""
    return torch.cdist(x, y, compute_mode="donot_use_mm_for_euclid_dist")  # inner products would not give 0

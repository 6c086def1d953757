"""Is a sample a copy, without a network: how near are its patches to those of one training image?

    d(x, y) = mean over patches p of x of  min over patches q of y  | p - q | / sqrt(size)
    d(x) = min_i d(x, train_i)

Patches are 7 x 7 pixels of images at 32 pixels a side, so a copy that is shifted a little, mirrored or turned is near.
It is read beside d of real images held out of training, as in statistics/nearest.py.
"""

import torch
from torch import Tensor
from torch.nn import functional as F

from metrics.statistics.nearest import turned

SIDE, PATCH, STRIDE = 32, 7, 2


def patch_distances(x: Tensor, train: Tensor) -> Tensor:
    """d of images x (N, 3, S, S) and train (M, 3, S, S) in [-1, 1] -> (N, M), in root mean square differences."""
    p, size = windows(x, PATCH - 1), 3 * PATCH**2  # (N, P, 147)
    columns = []
    for image in train:
        q = windows(turned(image[None]), STRIDE).flatten(0, 1)  # (8 Q, 147)
        columns.append(torch.cdist(p.flatten(0, 1), q).min(1).values.view(p.shape[:2]).mean(1) / size**0.5)
    return torch.stack(columns, 1)


def windows(x: Tensor, stride: int) -> Tensor:
    """The patches of x (N, 3, S, S), brought to SIDE pixels a side -> (N, P, 147)."""
    x = F.interpolate(x, (SIDE, SIDE), mode="area") if x.shape[-1] != SIDE else x
    return F.unfold(x, PATCH, stride=stride).mT

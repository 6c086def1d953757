"""Boxes (x0, y0, x1, y1) in pixels, x1 and y1 the first beyond it: how much two overlap, and those of a mask.

IoU = |A and B| / |A or B|
GIoU = IoU - (|C| - |A or B|) / |C|    C: the smallest box round both (Rezatofighi et al. 2019, arXiv 1902.09630)
"""

import numpy as np
import scipy
import torch
from torch import Tensor


def area(boxes: Tensor) -> Tensor:
    """Boxes (..., 4) -> (...); 0 for one turned inside out."""
    return (boxes[..., 2:] - boxes[..., :2]).clamp(min=0).prod(-1)


def overlaps(a: Tensor, b: Tensor) -> tuple[Tensor, Tensor]:
    """Boxes a and b (..., 4), broadcast -> the areas of `a and b` and of `a or b`, (...)."""
    both = area(torch.cat([torch.maximum(a[..., :2], b[..., :2]), torch.minimum(a[..., 2:], b[..., 2:])], -1))
    return both, area(a) + area(b) - both


def iou(a: Tensor, b: Tensor) -> Tensor:
    """Boxes a (K, 4) and b (M, 4) -> (K, M)."""
    both, either = overlaps(a[:, None], b[None])
    return both / either.clamp(min=1e-9)


def giou(a: Tensor, b: Tensor) -> Tensor:
    """Boxes a and b (..., 4), pair by pair -> (...), in -1..1."""
    both, either = overlaps(a, b)
    hull = area(torch.cat([torch.minimum(a[..., :2], b[..., :2]), torch.maximum(a[..., 2:], b[..., 2:])], -1))
    return both / either.clamp(min=1e-9) - (hull - either) / hull.clamp(min=1e-9)


def boxes_of(mask: np.ndarray) -> Tensor:
    """A mask (H, W) -> the boxes of its connected parts, (K, 4) float32."""
    parts = scipy.ndimage.find_objects(scipy.ndimage.label(mask)[0])
    return torch.tensor([[x.start, y.start, x.stop, y.stop] for y, x in parts], dtype=torch.float32).view(-1, 4)

"""Crop, fill, paste: the square around a mask that a model draws, and the way back into the photograph.

    side = ratio x the longer side of the mask's box                         crop
    photograph <- alpha drawn + (1 - alpha) photograph                       paste, alpha 0 outside of the mask

A defect of a few pixels vanishes in a latent that is 8 times smaller; in its window it fills the same share of the
picture as in training (NVIDIA's AnomalyGen crops 1.5 to 8 times the box).
"""

import math

import numpy as np
from scipy import ndimage

from data.transforms import resize

EDGE = 3  # pixels over which alpha rises, inside the mask
EIGHT = np.ones((3, 3), int)  # neighbours of a pixel, its corners too


def window(mask: np.ndarray, ratio: float = 0.0) -> tuple[slice, slice]:
    """The square (rows, columns) of a photograph that is drawn for a mask (H, W) bool, around its middle.

    ratio: its side over that of the mask's box; 0 is the largest square. Of a mask without a pixel it is the largest
    square in the middle. ValueError for a mask that no square of the photograph holds.
    """
    shape, largest = np.array(mask.shape), min(mask.shape)
    rows, columns = (np.flatnonzero(mask.any(axis)) for axis in (1, 0))
    low, high = np.zeros(2), shape.astype(float)
    if len(rows):
        low, high = np.array([rows[0], columns[0]]), np.array([rows[-1], columns[-1]]) + 1
    box = int(max(high - low)) if len(rows) else 0
    if box > largest:
        raise ValueError(f"a mask of {box} pixels does not fit in the largest square, of {largest}: crop it")
    side = min(max(math.ceil(ratio * box), box), largest) if ratio and box else largest
    top, left = np.clip(np.round((low + high - side) / 2), 0, shape - side).astype(int)
    return slice(int(top), int(top) + side), slice(int(left), int(left) + side)


def softened(mask: np.ndarray) -> np.ndarray:
    """alpha (H, W) from 0 to 1 of a mask (H, W) bool: 0 outside of it, rising over EDGE pixels inside, 1 beyond.

    A part that is thinner than that rises to 1 in its middle. The photograph's border is no edge.
    """
    padded = np.pad(mask, EDGE, mode="edge")
    if padded.all():
        return np.ones(mask.shape)
    depth = ndimage.distance_transform_edt(padded)
    parts, count = ndimage.label(padded, EIGHT)
    deepest = np.concatenate([[1.0], ndimage.maximum(depth, parts, range(1, count + 1))])[parts]
    return (depth / np.minimum(deepest, EDGE)).clip(0, 1)[EDGE:-EDGE, EDGE:-EDGE]


def pasted(drawn: np.ndarray, mask: np.ndarray, photograph: np.ndarray, square: tuple[slice, slice]) -> np.ndarray:
    """The photograph (H, W, 3) with a drawn square (S, S, 3) where its mask (H, W) is, and its own pixels elsewhere."""
    alpha, result = softened(mask)[square][..., None], photograph.copy()
    side = square[0].stop - square[0].start
    drawn = drawn if drawn.shape[0] == side else resize(drawn, side)
    mixed = np.round(alpha * drawn + (1 - alpha) * photograph[square]).astype(np.uint8)
    result[square] = np.where(alpha > 0, mixed, photograph[square])
    return result

"""The square of a photograph around its mask, which is trained on or drawn instead of the whole.

    side = ratio x the longer side of the mask's box

A defect of a few pixels vanishes in a latent that is 8 times smaller; in its window it fills the same share of the
picture whatever the photograph's size (NVIDIA's AnomalyGen crops 1.5 to 8 times the box).
"""

import math
import zlib
from collections.abc import Iterable
from statistics import median
from typing import NamedTuple

import numpy as np

Square = tuple[slice, slice]  # rows, columns


def window(mask: np.ndarray, ratio: float = 0.0) -> Square:
    """The square of a photograph around the middle of its mask (H, W) bool.

    ratio: its side over that of the mask's box; 0 is the largest square. Of a mask without a pixel it is the largest
    square in the middle. A mask that no square of the photograph holds is cut at both ends.
    """
    shape, largest = np.array(mask.shape), min(mask.shape)
    rows, columns = (np.flatnonzero(mask.any(axis)) for axis in (1, 0))
    low, high = np.zeros(2), shape.astype(float)
    if len(rows):
        low, high = np.array([rows[0], columns[0]]), np.array([rows[-1], columns[-1]]) + 1
    box = int(max(high - low)) if len(rows) else 0
    side = min(max(math.ceil(ratio * box), box), largest) if ratio and box else largest
    top, left = np.clip(np.round((low + high - side) / 2), 0, shape - side).astype(int)
    return slice(int(top), int(top) + side), slice(int(left), int(left) + side)


class Windows(NamedTuple):
    """Which squares of many photographs are used."""

    ratio: float  # side over that of the mask's box
    share: float  # side over the short side, of a photograph without a mask

    def square(self, mask: np.ndarray, name: str) -> Square:
        """The square of the photograph of a mask (H, W) bool; where it is empty, one at a place that `name` decides."""
        if mask.any():
            return window(mask, self.ratio)
        side = max(1, round(self.share * min(mask.shape)))
        place = np.random.default_rng(zlib.crc32(name.encode("utf-8", "surrogateescape")))
        top, left = (int(place.integers(length - side + 1)) for length in mask.shape)
        return slice(top, top + side), slice(left, left + side)


def windows(masks: Iterable[np.ndarray], ratio: float) -> Windows:
    """Those of a set: a photograph without a mask is used at the scale of the median one with a mask.

    masks: (H, W) bool each. ValueError where all are empty.
    """
    found = [(window(mask, ratio)[0], min(mask.shape)) for mask in masks if mask.any()]
    if not found:
        raise ValueError("no image has a mask, so there is nothing for a window to lie around")
    return Windows(ratio, median((rows.stop - rows.start) / short for rows, short in found))

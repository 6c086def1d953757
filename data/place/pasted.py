"""What was drawn in the window of a mask (data/window.py) goes back into its photograph.

photograph <- alpha drawn + (1 - alpha) photograph                       alpha 0 outside of the mask
"""

import numpy as np
import scipy

from data.transforms import resize
from data.window import Square

EDGE, SHARE = 3, 0.25  # alpha rises over so many pixels inside the mask, at most this share of a part's depth
EIGHT = np.ones((3, 3), int)  # neighbours of a pixel, its corners too


def softened(mask: np.ndarray) -> np.ndarray:
    """alpha (H, W) from 0 to 1 of a mask (H, W) bool: 0 outside of it, rising from its edge inwards, 1 beyond.

    A scratch is all edge: over EDGE pixels it would be half photograph, so a thin part has none. The photograph's
    border is no edge.
    """
    padded = np.pad(mask, EDGE, mode="edge")
    if padded.all():
        return np.ones(mask.shape)
    depth = scipy.ndimage.distance_transform_edt(padded)
    parts, count = scipy.ndimage.label(padded, EIGHT)
    deepest = np.concatenate([[1.0], scipy.ndimage.maximum(depth, parts, range(1, count + 1))])[parts]
    return (depth / np.minimum(SHARE * deepest, EDGE)).clip(0, 1)[EDGE:-EDGE, EDGE:-EDGE]


def pasted(drawn: np.ndarray, mask: np.ndarray, photograph: np.ndarray, square: Square) -> np.ndarray:
    """The photograph (H, W, 3) with a drawn square (S, S, 3) where its mask (H, W) is, and its own pixels elsewhere."""
    alpha, result = softened(mask)[square][..., None], photograph.copy()
    side = square[0].stop - square[0].start
    drawn = drawn if drawn.shape[0] == side else resize(drawn, side)
    mixed = np.round(alpha * drawn + (1 - alpha) * photograph[square]).astype(np.uint8)
    result[square] = np.where(alpha > 0, mixed, photograph[square])
    return result

"""What a drawn defect changed: the mask that belongs to the picture, and not the one that was asked for.

    d       = |Lab(drawn) - Lab(good)|                                    CIE76, smoothed by a pixel
    changed = connected parts of  d > LOW  inside the asked mask that reach  d > HIGH      (Canny's hysteresis)
    iou     = |changed and asked| / |changed or asked| = |changed| / |asked|

A drawn defect need not fill its mask, and a label that claims more than was drawn teaches a segmenter noise.
"""

from typing import NamedTuple

import numpy as np
import scipy

LOW, HIGH = 7.0, 14.0  # units of Lab; the autoencoder tiny-vae alone changes 0.95 of the pixels by less than LOW
TO_XYZ = np.array([[0.4124, 0.3576, 0.1805], [0.2126, 0.7152, 0.0722], [0.0193, 0.1192, 0.9505]])  # sRGB, D65
WHITE = TO_XYZ.sum(1)


class Changed(NamedTuple):
    """`mask` (H, W) bool; iou of it and the asked one; `difference`, the mean of d over the asked mask."""

    mask: np.ndarray
    iou: float
    difference: float


def lab(image: np.ndarray) -> np.ndarray:
    """CIE L*a*b* of an sRGB image (..., 3) uint8, white D65."""
    rgb = image / 255
    linear = np.where(rgb <= 0.04045, rgb / 12.92, ((rgb + 0.055) / 1.055) ** 2.4)
    t = linear @ TO_XYZ.T / WHITE
    f = np.where(t > (6 / 29) ** 3, np.cbrt(t), t / (3 * (6 / 29) ** 2) + 4 / 29)
    x, y, z = np.moveaxis(f, -1, 0)
    return np.stack([116 * y - 16, 500 * (x - y), 200 * (y - z)], -1)


def changed(drawn: np.ndarray, good: np.ndarray, asked: np.ndarray) -> Changed:
    """The module's equations. drawn, good (H, W, 3) uint8; asked (H, W) bool. An empty mask has iou 0."""
    d = scipy.ndimage.gaussian_filter(np.linalg.norm(lab(drawn) - lab(good), axis=-1), 1.0)
    parts, count = scipy.ndimage.label((d > LOW) & asked, np.ones((3, 3)))
    reached = np.zeros(count + 1, bool)
    reached[np.unique(parts[(d > HIGH) & asked])] = True
    reached[0] = False
    mask, area = reached[parts], max(int(asked.sum()), 1)
    return Changed(mask, float(mask.sum() / area), float(d[asked].sum() / area))

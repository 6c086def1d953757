"""The object in a photograph, by scipy alone: what differs from the border's colour, or is rougher.

    object = filled(closed(opened(d > otsu(d)  or  r > otsu(r))))        its largest connected part
    d = distance of a pixel's colour from the median colour of the border,   r = standard deviation around the pixel

The recipe is that of FLASH (Anomalib, 2026). An object that fills the border too cannot be told by it, nor a texture:
there the whole photograph is the object, or a mask says where it lies.
"""

import numpy as np
import scipy

BORDER, AROUND, ROUND = 0.03, 0.02, 0.01  # of the border, r's window, opening and closing: shares of the short side
LEVELS = 256  # of Otsu's histogram


def foreground(image: np.ndarray) -> np.ndarray:
    """The object of a photograph (H, W, 3) uint8 -> (H, W) bool. ValueError if no pixel differs from the border."""
    short, values = min(image.shape[:2]), image.astype(np.float64)
    width, around, radius = (max(1, round(share * short)) for share in (BORDER, AROUND, ROUND))
    inner = np.zeros(image.shape[:2], bool)
    inner[width:-width, width:-width] = True
    distance = np.linalg.norm(values - np.median(values[~inner], axis=0), axis=2)
    grey, size = values.mean(2), 2 * around + 1
    square = scipy.ndimage.uniform_filter(grey**2, size) - scipy.ndimage.uniform_filter(grey, size) ** 2
    rough = np.sqrt(square.clip(0))
    found = (distance > otsu(distance)) | (rough > otsu(rough)) & (distance > np.median(distance[~inner]))
    found = grown(grown(found, -radius), 2 * radius)
    found = grown(found, -radius)
    parts, count = scipy.ndimage.label(scipy.ndimage.binary_fill_holes(found))
    if not count:
        raise ValueError("no object was found: every pixel has the colour of the border")
    return parts == 1 + np.bincount(parts.ravel())[1:].argmax()


def grown(region: np.ndarray, radius: int) -> np.ndarray:
    """The region (H, W) bool dilated by a disc, eroded where the radius is negative."""
    if region.all() or not region.any():
        return region
    away = scipy.ndimage.distance_transform_edt(~region if radius > 0 else region)
    return away <= radius if radius > 0 else away > -radius


def otsu(values: np.ndarray) -> float:
    """The threshold that parts values into two classes with the largest variance between them (Otsu 1979)."""
    counts, edges = np.histogram(values, LEVELS)
    middles, below = (edges[:-1] + edges[1:]) / 2, np.cumsum(counts)
    sums, above = np.cumsum(counts * middles), below[-1] - below
    apart = sums / below.clip(1) - (sums[-1] - sums) / above.clip(1)
    return max(float(edges[1 + (below * above * apart**2).argmax()]), float(values.min()))

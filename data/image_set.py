"""The images of one source: what every part of the package passes on when it passes images on."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import torch

from data.lazy import Lazy


class ImageSet(NamedTuple):
    """N images of one size with their classes."""

    pixels: np.ndarray | Lazy  # (N, S, S, 3) uint8
    labels: torch.Tensor  # (N,) long, positions in `classes`
    classes: list[str]  # "product/state", or the folder's name
    names: Sequence[str]  # where each image comes from
    masks: np.ndarray | Lazy | None = None  # (N, S, S) bool: where the defect is; all False where an image has no mask
    parents: dict[str, str] = {}  # class -> superclass, where the source has them
    origins: np.ndarray | None = None  # (N, 4): height, width of the original, top, left of the crop; None: no crop

    def at(self, index: torch.Tensor) -> "ImageSet":
        """The images of these numbers; the classes stay."""
        chosen = index.numpy()
        masks, origins = (None if x is None else x[chosen] for x in (self.masks, self.origins))
        pixels, labels, names = self.pixels[chosen], self.labels[index], [self.names[i] for i in index]
        return self._replace(pixels=pixels, labels=labels, names=names, masks=masks, origins=origins)

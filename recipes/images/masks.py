"""Masks in training: as a weight of the loss (DriveDiTFit, Tu et al. 2024, arXiv 2407.15661), or as hints."""

from collections.abc import Callable, Sequence

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from data import ImageSet
from data.images import decode_mask
from data.lazy import Lazy, blocks
from data.transforms import Transform, Variant, apply_variant
from data.window import windows

SMALL = 0.5  # of a picture's side: defects whose boxes are smaller are drawn better in a window of their own


class Computed:
    """What every image has in each of its variants, computed for a batch: values[index, variant], (B, ...)."""

    def __init__(self, at: Callable[..., Tensor]):
        self.at = at

    def __getitem__(self, key: tuple[Tensor, Tensor | int] | Tensor) -> Tensor:
        return self.at(*key) if isinstance(key, tuple) else self.at(key)


def mask_weights(
    images: ImageSet, weight: float, variants: list[Variant], factor: int, source: str
) -> dict[str, Tensor]:
    """{"weight": values}: `weight` in every latent pixel that a mask touches, 1 elsewhere; {} for weight 1.

    values[index, variant] is (B, 1, h, w). factor: pixels of the image to one of the latent. As published, a weighted
    mean is divided by the number of pixels and not by their weights. ValueError for images, those of `source`, without
    masks.
    """
    if weight == 1:
        return {}
    if images.masks is None:
        raise ValueError(f"mask_weight = {weight} needs masks, and {source} has none")
    shapes = mask_hints(images.masks, variants)
    return {"weight": Computed(lambda *which: 1 + (weight - 1) * F.max_pool2d(shapes[which], factor))}


def check_masks(images: ImageSet, source: str, recipe: str) -> None:
    """ValueError if the images, those of `source`, have no masks, or only empty ones."""
    if images.masks is None or not areas(images.masks).any():
        found = "none" if images.masks is None else "only empty ones"
        raise ValueError(f"the {recipe} recipe reads masks, and {source} has {found}")


def say_small(masks: np.ndarray | Lazy) -> None:
    """One sentence if the boxes of the masks (N, S, S) that are not empty are smaller than SMALL at the median."""
    side = windows((mask for block in blocks(masks) for mask in block), 1.0).share
    if side < SMALL:
        print(
            f"the defects' boxes span {side:.2f} of a picture's side (median): of photographs in files, --window 2 "
            "trains on the square of twice each box, where a thin defect is drawn sharper"
        )


def areas(masks: np.ndarray | Lazy) -> Tensor:
    """Pixels of each of the masks (N, S, S) -> (N,)."""
    return torch.cat([torch.from_numpy(block).flatten(1).sum(1) for block in blocks(masks)])


def mask_hints(masks: np.ndarray | Lazy, variants: list[Variant]) -> Computed:
    """Masks (N, S, S) of True and False: hints[index, variant] -> (B, 1, S, S) of 1 and 0, turned as the image is."""

    def at(index: Tensor, variant: Tensor | int) -> Tensor:
        plain = torch.from_numpy(masks[index.numpy()])[:, None].float()
        chosen = torch.as_tensor(variant).expand(len(index)).tolist()
        return torch.stack([apply_variant(mask, variants[v], nearest=True) for mask, v in zip(plain, chosen)])

    return Computed(at)


def mask_images(masks: np.ndarray | Lazy) -> np.ndarray | Lazy:
    """Masks (N, S, S) -> images (N, S, S, 3), white on black."""
    if isinstance(masks, Lazy):
        return Lazy(_white, lambda i: (masks.make, *masks.arguments(i)), (*masks.shape, 3), np.uint8)
    return np.repeat(masks[..., None], 3, 3).astype(np.uint8) * 255


def _white(make: Callable, *which: object) -> np.ndarray:
    return mask_images(make(*which)[None])[0]


def read_masks(files: Sequence[str], side: int | tuple[int, int], trained: dict) -> np.ndarray:
    """Hints of a ControlNet of this package, read as its training read masks: (N, H, W) of True and False.

    side: of a square, or (H, W). trained: the settings of its training; its crop is for masks that are as large.
    ValueError as data.images raises.
    """
    masks, crop = [decode_mask(file) for file in files], trained.get("crop", 0)
    ways = [Transform(side, crop if 0 < crop <= min(m.shape) else None, trained.get("resize", "resize")) for m in masks]
    return np.stack([way.mask(mask) > 0 for way, mask in zip(ways, masks)])

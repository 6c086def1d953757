"""Masks in training: as a weight of the loss (DriveDiTFit, Tu et al. 2024, arXiv 2407.15661), or as hints."""

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from data import ImageSet
from data.images import decode_mask
from data.transforms import Transform, Variant, apply_variant


def mask_weights(
    images: ImageSet, weight: float, variants: list[Variant], factor: int, source: str
) -> dict[str, Tensor]:
    """{"weight": (N, V, 1, h, w)}: `weight` in every latent pixel that a mask touches, 1 elsewhere; {} for weight 1.

    factor: pixels of the image to one of the latent. As published, a weighted mean is divided by the number of pixels
    and not by their weights. ValueError for images, those of `source`, without masks.
    """
    if weight == 1:
        return {}
    if images.masks is None:
        raise ValueError(f"mask_weight = {weight} needs masks, and {source} has none")
    masks = torch.from_numpy(images.masks)[:, None].float()  # (N, 1, S, S)
    touched = [F.max_pool2d(apply_variant(masks, variant, nearest=True), factor) for variant in variants]
    return {"weight": 1 + (weight - 1) * torch.stack(touched, 1)}  # (N, V, 1, h, w)


def check_masks(images: ImageSet, source: str, recipe: str) -> None:
    """ValueError if the images, those of `source`, have no masks, or only empty ones."""
    if images.masks is None or not images.masks.any():
        found = "none" if images.masks is None else "only empty ones"
        raise ValueError(f"the {recipe} recipe reads masks, and {source} has {found}")


def mask_hints(masks: np.ndarray, variants: list[Variant]) -> Tensor:
    """Masks (N, S, S) of True and False in every variant -> (N, V, 1, S, S) of 1 and 0."""
    plain = torch.from_numpy(masks)[:, None].float()
    return torch.stack([apply_variant(plain, variant, nearest=True) for variant in variants], 1)


def mask_images(masks: np.ndarray) -> np.ndarray:
    """Masks (N, S, S) -> images (N, S, S, 3), white on black."""
    return np.repeat(masks[..., None], 3, 3).astype(np.uint8) * 255


def read_masks(files: Sequence[str], side: int | tuple[int, int], trained: dict) -> np.ndarray:
    """Hints of a ControlNet of this package, read as its training read masks: (N, H, W) of True and False.

    side: of a square, or (H, W). trained: the settings of its training; its crop is for masks that are as large.
    ValueError as data.images raises.
    """
    masks, crop = [decode_mask(file) for file in files], trained.get("crop", 0)
    ways = [Transform(side, crop if 0 < crop <= min(m.shape) else None, trained.get("resize", "resize")) for m in masks]
    return np.stack([way.mask(mask) > 0 for way, mask in zip(ways, masks)])

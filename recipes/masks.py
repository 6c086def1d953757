"""Masks in training: as a weight of the loss (DriveDiTFit, Tu et al. 2024, arXiv 2407.15661), or as hints."""

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from data import ImageSet
from data.transforms import Variant, apply_variant


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


def check_masks(images: ImageSet, source: str) -> None:
    """ValueError if the images, those of `source`, have no masks, or only empty ones."""
    if images.masks is None or not images.masks.any():
        found = "none" if images.masks is None else "only empty ones"
        raise ValueError(f"the control recipe reads masks, and {source} has {found}")


def mask_hints(masks: np.ndarray, variants: list[Variant]) -> Tensor:
    """Masks (N, S, S) of True and False in every variant -> (N, V, 1, S, S) of 1 and 0."""
    plain = torch.from_numpy(masks)[:, None].float()
    return torch.stack([apply_variant(plain, variant, nearest=True) for variant in variants], 1)


def mask_images(masks: np.ndarray) -> np.ndarray:
    """Masks (N, S, S) -> images (N, S, S, 3), white on black."""
    return np.repeat(masks[..., None], 3, 3).astype(np.uint8) * 255

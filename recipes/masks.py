"""The loss counts more where a mask says that it matters (DriveDiTFit, Tu et al. 2024, arXiv 2407.15661)."""

import torch
from torch import Tensor
from torch.nn import functional as F

from data import ImageSet
from data.transforms import apply_variant


def mask_weights(cfg, images: ImageSet, options: list, factor: int) -> dict[str, Tensor]:
    """{"weight": (N, V, 1, h, w)}, cfg.mask_weight in every latent pixel that a mask touches, 1 elsewhere; {} for 1.

    As published, a weighted mean is divided by the number of pixels and not by their weights. ValueError for a weight
    that is not above 0, and for images without masks.
    """
    if cfg.mask_weight == 1:
        return {}
    if cfg.mask_weight <= 0:
        raise ValueError(f"mask_weight must be above 0, found {cfg.mask_weight}")
    if images.masks is None:
        raise ValueError(f"mask_weight = {cfg.mask_weight} needs masks, and {cfg.data} has none")
    masks = torch.from_numpy(images.masks)[:, None].float()  # (N, 1, S, S)
    seen = [F.max_pool2d(apply_variant(masks, variant, nearest=True), factor) for variant in options]
    return {"weight": 1 + (cfg.mask_weight - 1) * torch.stack(seen, 1)}  # (N, V, 1, h, w)

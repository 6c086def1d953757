"""A small network that finds defects: image (B, 3, S, S) in [-1, 1] -> the logit of a defect at each pixel (B, S, S).

It learns from generated photographs of the oracle split, half of them reconstructed by the autoencoder, as samples
are. Its answers for samples stand beside its answers for photographs of the test split.
"""

from pathlib import Path

import numpy as np
import torch
from safetensors.torch import load_file, save_file
from torch.nn import functional as F

import weights
from data import load
from data.transforms import Transform, to_tensor
from metrics.downstream.segment import Segmenter, train_segmenter
from recipes.samples.evaluation import reconstruct

BATCH = 32  # images a step


def trained_finder(product: str, path: Path, steps: int, count: int) -> Segmenter:
    """The finder for a product's defects: read from `path`, else trained on `count` images of each state."""
    torch.manual_seed(0)
    finder = Segmenter()
    if path.exists():
        finder.load_state_dict(load_file(path))
        return finder.eval()
    images = load(f"generated:{product}/oracle/{count}", Transform(64))
    vae = weights.load("tiny-vae", expect="vae", dtype=torch.float32)
    plain = to_tensor(images.pixels)  # (N, 3, S, S)
    x, masks = torch.cat([plain, reconstruct(vae, plain)]), torch.from_numpy(images.masks).float().repeat(2, 1, 1)
    train_segmenter(finder, [(x, masks)], torch.Generator().manual_seed(0), steps, BATCH)
    path.parent.mkdir(parents=True, exist_ok=True)
    save_file(finder.state_dict(), path)
    return finder.eval()


@torch.no_grad()
def overlap(finder: Segmenter, pixels: np.ndarray, masks: np.ndarray) -> tuple[float, float]:
    """Images (N, S, S, 3) uint8 and masks (N, S, S) bool -> how well the found defects agree with the masks.

    The mean intersection over union, and the share of images whose likeliest pixel lies in the mask or within 2 pixels
    of it (the pointing game, Zhang et al. 2016, arXiv 1608.00507).
    """
    logits = torch.cat([finder(part) for part in to_tensor(pixels).split(64)])  # (N, S, S)
    defects, masks = logits > 0, torch.as_tensor(masks)
    union = (defects | masks).sum((1, 2)).clamp(min=1)
    iou = ((defects & masks).sum((1, 2)) / union).mean().item()
    near = F.max_pool2d(masks[:, None].float(), 5, stride=1, padding=2).flatten(1) > 0  # (N, S S)
    hit = near.gather(1, logits.flatten(1).argmax(1, keepdim=True)).double().mean().item()
    return iou, hit


def share_near(masks: np.ndarray) -> float:
    """Masks (N, S, S) bool -> the share of hits in `overlap` of a finder that points at random."""
    return (F.max_pool2d(torch.as_tensor(masks)[:, None].float(), 5, stride=1, padding=2) > 0).double().mean().item()

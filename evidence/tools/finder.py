"""A small network that finds defects: image (B, 3, S, S) in [-1, 1] -> the logit of a defect at each pixel (B, S, S).

It learns from generated photographs of the oracle split, half of them reconstructed by the autoencoder, as samples
are. Its answers for samples stand beside its answers for photographs of the test split.
"""

from pathlib import Path

import numpy as np
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from torch.nn import functional as F

import weights
from data import load
from data.transforms import Transform, to_tensor
from recipes.evaluation import reconstruct

BATCH, RARE = 32, 4.0  # images a step; weight of the loss at defects, which are few pixels


class Finder(nn.Module):
    """A small U-Net: two convolutions at each of three sizes, down and up, with skip connections that are added."""

    def __init__(self, width: int = 16) -> None:
        super().__init__()
        widths = [width, 2 * width, 4 * width]
        self.down = nn.ModuleList(two_convolutions(a, b) for a, b in zip([3, *widths], widths))
        self.up = nn.ModuleList(two_convolutions(b, a) for a, b in zip(widths, widths[1:]))
        self.out = nn.Conv2d(width, 1, 1)

    def forward(self, x: Tensor) -> Tensor:
        """(B, 3, S, S) -> logits (B, S, S)."""
        skips = []
        for i, level in enumerate(self.down):
            x = level(x if i == 0 else F.max_pool2d(x, 2))
            skips.append(x)  # (B, width 2^i, S/2^i)
        for level, skip in zip(reversed(self.up), reversed(skips[:-1])):
            x = level(F.interpolate(x, scale_factor=2)) + skip
        return self.out(x)[:, 0]  # (B, S, S)


def two_convolutions(a: int, b: int) -> nn.Sequential:
    """Two 3x3 convolutions, from `a` channels to `b`, each with GroupNorm and ReLU."""
    convolutions = (nn.Conv2d(c, b, 3, padding=1) for c in (a, b))
    return nn.Sequential(*(layer for conv in convolutions for layer in (conv, nn.GroupNorm(4, b), nn.ReLU())))


def trained_finder(product: str, path: Path, steps: int, count: int) -> Finder:
    """The finder for a product's defects: read from `path`, else trained on `count` images of each state."""
    torch.manual_seed(0)
    finder = Finder()
    if path.exists():
        finder.load_state_dict(load_file(path))
        return finder.eval()
    images = load(f"generated:{product}/oracle/{count}", Transform(64))
    vae = weights.load("tiny-vae", expect="vae", dtype=torch.float32)
    plain = to_tensor(images.pixels)  # (N, 3, S, S)
    x, masks = torch.cat([plain, reconstruct(vae, plain)]), torch.from_numpy(images.masks).float().repeat(2, 1, 1)
    optimizer = torch.optim.AdamW(finder.parameters(), lr=3e-3)
    decay = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, steps)
    generator = torch.Generator().manual_seed(0)
    for _ in range(steps):
        index = torch.randint(len(x), (BATCH,), generator=generator)
        turn, mirror = torch.randint(4, (), generator=generator).item(), torch.rand((), generator=generator) < 0.5
        inputs, targets = (images[index].rot90(turn, (-2, -1)) for images in (x, masks))
        inputs, targets = (images.flip(-1) if mirror else images for images in (inputs, targets))
        loss = F.binary_cross_entropy_with_logits(finder(inputs), targets, pos_weight=torch.tensor(RARE))
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        decay.step()
    path.parent.mkdir(parents=True, exist_ok=True)
    save_file(finder.state_dict(), path)
    return finder.eval()


@torch.no_grad()
def overlap(finder: Finder, pixels: np.ndarray, masks: np.ndarray) -> tuple[float, float]:
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

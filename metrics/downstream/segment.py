"""A small segmenter of defects with a fixed budget: what a training set of pairs (photograph, mask) is worth.

    image (B, 3, S, S) in [-1, 1] -> the logit of a defect at each pixel (B, S, S)

A U-Net in plain torch, STEPS steps of BATCH images by AdamW, whose rate LR falls to 0 along a cosine. Each source, such
as real pairs and drawn ones, has the same share of a batch; an image is turned by quarters and mirrored at random. The
numbers are those of metrics/statistics/pixels.py on held-out real photographs.
"""

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from metrics.downstream.gain import altered
from metrics.statistics.pixels import pixel_scores

STEPS, BATCH, LR = 300, 16, 3e-3
RARE = 4.0  # weight of the loss at defects, which are few pixels
Pairs = tuple[Tensor, Tensor]  # images (N, 3, S, S) in [-1, 1], masks (N, S, S)


class Segmenter(nn.Module):
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


def train_segmenter(
    network: Segmenter,
    sources: list[Pairs],
    generator: torch.Generator,
    steps: int = STEPS,
    batch: int = BATCH,
    strong: bool = False,
) -> Segmenter:
    """The network after `steps` of the module's training, in eval mode. strong: brightness and contrast change too."""
    optimizer = torch.optim.AdamW(network.parameters(), lr=LR)
    decay = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, steps)
    share = -(-batch // len(sources))
    for _ in range(steps):
        parts = []
        for x, masks in sources:
            index = torch.randint(len(x), (share,), generator=generator)
            parts.append((x[index], masks[index]))
        inputs, targets = (torch.cat(some)[:batch] for some in zip(*parts))
        turn, mirror = torch.randint(4, (), generator=generator).item(), torch.rand((), generator=generator) < 0.5
        inputs, targets = (images.rot90(turn, (-2, -1)) for images in (inputs, targets))
        inputs, targets = (images.flip(-1) if mirror else images for images in (inputs, targets))
        if strong:  # the mask goes the way of its image, as a fourth channel
            both = altered(torch.cat([inputs, 2 * targets[:, None] - 1], 1), generator, 3)
            inputs, targets = both[:, :3], (both[:, 3] > 0).float()
        loss = F.binary_cross_entropy_with_logits(network(inputs), targets, pos_weight=torch.tensor(RARE))
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        decay.step()
    return network.eval()


def segmented(sources: list[Pairs], seed: int, steps: int = STEPS, strong: bool = False) -> Segmenter:
    """A segmenter from random weights of this seed, trained on the sources."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        network = Segmenter()
    return train_segmenter(network, sources, torch.Generator().manual_seed(seed), steps, strong=strong)


@torch.no_grad()
def scores_of(network: Segmenter, x: Tensor) -> np.ndarray:
    """The logits of images (N, 3, S, S) as an array (N, S, S)."""
    return torch.cat([network(part) for part in x.split(64)]).numpy()


def segmentation(network: Segmenter, held_out: Pairs) -> dict[str, float]:
    """ap, auroc, f1_max and pro on held-out photographs and their masks."""
    x, masks = held_out
    return pixel_scores(scores_of(network, x), masks.numpy() > 0)

"""Downstream gain: does a classifier of real images profit from synthetic ones in its training?

    gain = accuracy(real + synthetic) - accuracy(real)

The accuracy is balanced: the mean over classes of the share of held-out real images that is recognised. The classifier
and its budget are fixed, so that numbers compare. It is the residual network of metrics/networks/features.py, from
random weights or from those of a trained one with a new head, such as tiny-features. It takes STEPS steps of BATCH by
AdamW, whose rate LR falls to 0 along a cosine. A batch has as many images of each class and of each source, real and
synthetic; they are drawn with replacement, flipped and turned at random.

Arms beside these two:

    real twice         `real` with other random draws: what a gain of nothing looks like
    real, strong       the images are moved, scaled, lightened and covered as well
    real + shuffled    the synthetic images have labels in random order: it must not gain
    synthetic          without the real images
    oracle             more real images in the place of the synthetic ones: the ceiling
"""

import copy
import math
from statistics import mean, stdev

import torch
from scipy.stats import t as student
from torch import Tensor, nn
from torch.nn import functional as F

from metrics.networks.features import Features

STEPS, BATCH, LR, WARMUP = 500, 32, 1e-3, 20
WIDTHS = (16, 32, 64, 96)  # of a network with random weights


def arms(real, synthetic, more=None, seed: int = 0) -> dict[str, tuple[list, bool]]:
    """Name of each arm -> its sources, pairs of images (N, 3, S, S) and labels (N,), and whether to augment strongly.

    real, synthetic, more: such pairs; without `more`, real images besides `real`, there is no oracle.
    """
    x, y = synthetic
    shuffled = x, y[torch.randperm(len(y), generator=torch.Generator().manual_seed(seed))]
    found = {
        "real": ([real], False),
        "real twice": ([real, real], False),
        "real, strong": ([real], True),
        "real + synthetic": ([real, synthetic], False),
        "real + synthetic, strong": ([real, synthetic], True),
        "real + shuffled": ([real, shuffled], False),
        "synthetic": ([synthetic], False),
    }
    return found | ({"oracle": ([real, more], False)} if more else {})


def probe(
    sources: list[tuple[Tensor, Tensor]],
    classes: int,
    seed: int,
    strong: bool = False,
    start: Features | None = None,
    steps: int = STEPS,
    bf16: bool = False,
) -> Features:
    """The classifier of one arm, from random weights or `start`. ValueError for a source without a class."""
    rows = [[(y == label).nonzero()[:, 0] for label in range(classes)] for _, y in sources]
    empty = [(i, label) for i, of_class in enumerate(rows) for label in range(classes) if not len(of_class[label])]
    if empty:
        raise ValueError(f"each source must show each class, source {empty[0][0]} has no image of class {empty[0][1]}")
    generator = torch.Generator().manual_seed(seed)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        network = copy.deepcopy(start) if start else Features(classes, sources[0][0].shape[-1], WIDTHS)
        network.head = nn.Linear(network.head.in_features, classes)
    network.train()
    optimizer = torch.optim.AdamW(network.parameters(), LR, weight_decay=0.02)
    for step in range(steps):
        for group in optimizer.param_groups:
            group["lr"] = LR * min(1, (step + 1) / WARMUP) * 0.5 * (1 + math.cos(math.pi * step / steps))
        x, y = balanced_batch(sources, rows, generator)
        x = augmented(x, generator, strong)
        with torch.autocast(x.device.type, torch.bfloat16, enabled=bf16):
            logits = network(x).float()
        F.cross_entropy(logits, y).backward()
        optimizer.step()
        optimizer.zero_grad()
    return network.eval()


def balanced_batch(sources, rows, generator) -> tuple[Tensor, Tensor]:
    """BATCH images (B, 3, S, S) and labels (B,): sources in turn, of each the classes in turn, starting anywhere."""
    start = int(torch.randint(len(sources) * len(rows[0]), (1,), generator=generator))
    images, labels = [], []
    for place in range(start, start + BATCH):
        (x, y), of_class = sources[place % len(sources)], rows[place % len(sources)]
        some = of_class[place // len(sources) % len(of_class)]
        row = some[int(torch.randint(len(some), (1,), generator=generator))]
        images.append(x[row])
        labels.append(y[row])
    return torch.stack(images), torch.stack(labels)


def augmented(x: Tensor, generator: torch.Generator, strong: bool = False) -> Tensor:
    """Images (B, 3, S, S) each flipped and turned at random; if strong, altered further."""
    flips, turns = (torch.randint(n, (len(x),), generator=generator).tolist() for n in (2, 4))
    x = torch.stack(
        [(image.flip(-1) if flip else image).rot90(turn, (1, 2)) for image, flip, turn in zip(x, flips, turns)]
    )
    return altered(x, generator) if strong else x


def altered(x: Tensor, generator: torch.Generator) -> Tensor:
    """Each image of x (B, 3, S, S) scaled by 0.8 to 1.25, moved by up to an eighth of its side, its contrast scaled by
    0.7 to 1.4 and its brightness moved by up to 0.2, and a square of a quarter of its side covered with grey."""

    def uniform(low, high):
        return low + (high - low) * torch.rand(len(x), generator=generator)

    scale = 1.25 ** uniform(-1, 1)
    zero = torch.zeros_like(scale)
    theta = torch.stack(
        [torch.stack([scale, zero, uniform(-0.25, 0.25)], 1), torch.stack([zero, scale, uniform(-0.25, 0.25)], 1)], 1
    )  # (B, 2, 3)
    grid = F.affine_grid(theta, x.shape, align_corners=False)
    x = F.grid_sample(x, grid, padding_mode="reflection", align_corners=False)
    middle = x.mean((1, 2, 3), keepdim=True)
    x = (x - middle) * uniform(0.7, 1.4)[:, None, None, None] + middle + uniform(-0.2, 0.2)[:, None, None, None]
    side = x.shape[-1]
    places = torch.arange(side)
    top, left = (uniform(0, 0.75 * side)[:, None] for _ in range(2))
    down, across = ((at <= places) & (places < at + side / 4) for at in (top, left))  # (B, S)
    return torch.where((down[:, :, None] & across[:, None])[:, None], 0.0, x).clamp(-1, 1)


@torch.no_grad()
def recalls(network: Features, x: Tensor, y: Tensor, classes: int) -> list[float]:
    """Of each class, the share of its images that the network recognises; their mean is the balanced accuracy."""
    right = torch.cat([network(part).argmax(1) for part in x.split(64)]) == y
    return [right[y == label].double().mean().item() for label in range(classes)]


def gain(ours: list[float], baseline: list[float]) -> tuple[float, float]:
    """Accuracies of two arms with the same seeds -> mean difference, and half the width of its 95 % interval.

    Student's t over the pairs: mean +- t_{0.975, n-1} std / sqrt(n), NaN for a single one.
    """
    if len(ours) != len(baseline):
        raise ValueError(f"arms are compared seed by seed, found {len(ours)} and {len(baseline)}")
    difference = [a - b for a, b in zip(ours, baseline)]
    if len(difference) < 2:
        return difference[0], math.nan
    return mean(difference), float(student.ppf(0.975, len(difference) - 1)) * stdev(difference) / math.sqrt(len(ours))

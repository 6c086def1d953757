"""Downstream gain: does a classifier of real images gain from synthetic images in its training?

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

import scipy
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from metrics.networks.features import Features

STEPS, BATCH, LR, WARMUP = 500, 32, 1e-3, 20
Source = tuple[Tensor, Tensor]  # images (N, 3, S, S) in [-1, 1], labels (N,)
WIDTHS = (16, 32, 64, 96)  # of a network with random weights


def arms(
    real: Source, synthetic: Source, more: Source | None = None, seed: int = 0
) -> dict[str, tuple[list[Source], bool]]:
    """{name of an arm: (its sources, whether to augment strongly)}.

    more: real images besides `real`; without them there is no oracle.
    """
    x, y = synthetic
    shuffled = x, y[torch.randperm(len(y), generator=torch.Generator().manual_seed(seed))]
    named = {
        "real": ([real], False),
        "real twice": ([real, real], False),
        "real, strong": ([real], True),
        "real + synthetic": ([real, synthetic], False),
        "real + synthetic, strong": ([real, synthetic], True),
        "real + shuffled": ([real, shuffled], False),
        "synthetic": ([synthetic], False),
    }
    return named | ({"oracle": ([real, more], False)} if more else {})


def probe(
    sources: list[Source],
    classes: int,
    seed: int,
    strong: bool = False,
    start: Features | None = None,
    steps: int = STEPS,
    bf16: bool = False,
) -> Features:
    """The trained classifier of one arm, from random weights or those of `start` with a new head, in eval mode.

    Raises ValueError for a source without an image of some class.
    """
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


def balanced_batch(sources: list[Source], rows: list[list[Tensor]], generator: torch.Generator) -> Source:
    """BATCH images and labels: the sources in turn, and within each the classes in turn, from a random start.

    rows[source][class]: indices of the images of that class.
    """
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
    """Images (B, 3, S, S), each flipped and turned at random, and `altered` if strong."""
    flips, turns = (torch.randint(n, (len(x),), generator=generator).tolist() for n in (2, 4))
    x = torch.stack(
        [(image.flip(-1) if flip else image).rot90(turn, (1, 2)) for image, flip, turn in zip(x, flips, turns)]
    )
    return altered(x, generator) if strong else x


def altered(x: Tensor, generator: torch.Generator, lit: int | None = None) -> Tensor:
    """Images (B, C, S, S), each scaled by 0.8 to 1.25 and moved by up to an eighth of its side, with the contrast times
    0.7 to 1.4, the brightness plus up to 0.2 either way, and a grey square of a quarter of the side on it.

    lit: so many first channels change their light and are covered, all by default; the others, as a mask, move alone.
    """

    def uniform(low: float, high: float) -> Tensor:
        return low + (high - low) * torch.rand(len(x), generator=generator)

    scale = 1.25 ** uniform(-1, 1)
    zero = torch.zeros_like(scale)
    theta = torch.stack(
        [torch.stack([scale, zero, uniform(-0.25, 0.25)], 1), torch.stack([zero, scale, uniform(-0.25, 0.25)], 1)], 1
    )  # (B, 2, 3)
    grid = F.affine_grid(theta, x.shape, align_corners=False)
    x = F.grid_sample(x, grid, padding_mode="reflection", align_corners=False)
    x, still = x[:, :lit], x[:, lit:] if lit else x[:, :0]
    middle = x.mean((1, 2, 3), keepdim=True)
    x = (x - middle) * uniform(0.7, 1.4)[:, None, None, None] + middle + uniform(-0.2, 0.2)[:, None, None, None]
    side = x.shape[-1]
    places = torch.arange(side)
    top, left = (uniform(0, 0.75 * side)[:, None] for _ in range(2))
    down, across = ((at <= places) & (places < at + side / 4) for at in (top, left))  # (B, S)
    x = torch.where((down[:, :, None] & across[:, None])[:, None], 0.0, x).clamp(-1, 1)
    return torch.cat([x, still], dim=1)


@torch.no_grad()
def recalls(network: Features, x: Tensor, y: Tensor, classes: int) -> list[float]:
    """The share of recognised images of each class; the mean over classes is the balanced accuracy.

    x (N, 3, S, S) in [-1, 1], y (N,).
    """
    right = torch.cat([network(part).argmax(1) for part in x.split(64)]) == y
    return [right[y == label].double().mean().item() for label in range(classes)]


def gain(ours: list[float], baseline: list[float]) -> tuple[float, float]:
    """Accuracies of two arms with the same seeds -> mean difference, and half the width of its 95 % interval.

    Student's t over the n pairs: mean +- t_{0.975, n-1} std / sqrt(n); NaN for one pair. Raises ValueError for arms of
    different lengths.
    """
    if len(ours) != len(baseline):
        raise ValueError(f"arms are compared seed by seed, found {len(ours)} and {len(baseline)}")
    difference = [a - b for a, b in zip(ours, baseline)]
    if len(difference) < 2:
        return difference[0], math.nan
    quantile = float(scipy.stats.t.ppf(0.975, len(difference) - 1))
    return mean(difference), quantile * stdev(difference) / math.sqrt(len(difference))

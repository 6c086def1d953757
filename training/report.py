"""What a run ends with: fresh samples beside the real images in one picture, and a table of what they are worth."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from PIL import Image

from border import to_json
from data import ImageSet
from data.output.atomic import write_atomic
from data.output.grid import grid, save_image, sections
from data.transforms import to_tensor, to_uint8
from metrics import networks
from metrics.table import class_accuracy, measure_in
from metrics.text import as_text
from metrics.textures.table import PATCHES
from metrics.verdict import verdict

ROWS, COLUMNS = 4, 8  # of the picture
SEED_APART = 1000  # between the seeds of these samples and of those that were watched during training


def show_and_measure(
    run: Path,
    count: int,
    sample: Callable[[torch.Tensor, int], np.ndarray],
    reconstruct: Callable[[torch.Tensor], torch.Tensor],
    images: ImageSet,
    val: ImageSet | None,
    device: torch.device,
    features: str = "tiny-features",
) -> None:
    """`count` samples of each class -> run/grid.png, and with held-out images `val` run/metrics.json.

    sample(labels, seed) -> uint8 (N, S, S, 3). reconstruct(x): images encoded and decoded again. No sample of a latent
    model can surpass them, so the share of them that the classifier recognises stands beside that of the samples.
    features: what is measured in, "patches" or a network of metrics/networks.
    """
    labels = torch.arange(len(images.classes)).repeat_interleave(count)
    samples = sample(labels, SEED_APART)
    show(run, images, samples, labels)
    if val is None:
        print("no metrics.json: distances need real images that were not trained on (--val)")
        return
    judge = networks.load_network("tiny-features", device)
    fake = images._replace(pixels=samples, labels=labels)
    network = None if features == PATCHES else networks.load_network(features, device)
    numbers = measure_in(network, fake, val, images, judge)
    decoded = val._replace(pixels=to_uint8(reconstruct(to_tensor(val.pixels).to(device))))
    for name, real in (("class_accuracy_real", val), ("class_accuracy_decoded", decoded)):
        if share := class_accuracy(judge, real):
            numbers[name] = share["class_accuracy"]
    write_atomic(run / "metrics.json", to_json(numbers, indent=2).encode() + b"\n")
    print(f"{as_text(numbers)}\n{verdict([numbers])}")


def show(run: Path, images: ImageSet, samples: np.ndarray, labels: torch.Tensor) -> None:
    """run/grid.png: a few real images, samples from before the training, and samples now."""
    names = images.classes[:COLUMNS]

    def table(pixels: np.ndarray, of: torch.Tensor) -> Image.Image:
        return grid({name: list(pixels[(of == i).nonzero()[:ROWS, 0].numpy()]) for i, name in enumerate(names)})

    before = Image.open(run / "samples" / f"step_{0:06d}.png").convert("RGB")
    parts = {"images": table(images.pixels, images.labels), "before": before, "after": table(samples, labels)}
    save_image(run / "grid.png", sections(parts))

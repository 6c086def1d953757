"""What a run ends with: fresh samples beside the real images in one picture, and a table of what they are worth."""

import json

import numpy as np
import torch
from PIL import Image

from data import ImageSet
from data.output.atomic import write_atomic
from data.output.grid import grid, save_image, sections
from data.transforms import to_tensor, to_uint8
from metrics import networks
from metrics.table import as_text, class_accuracy, measure

ROWS, COLUMNS = 4, 8  # of the picture
SEED_APART = 1000  # between the seeds of these samples and of those that were watched during training


def show_and_measure(cfg, run, pictures, through, images: ImageSet, val: ImageSet | None, device) -> None:
    """cfg.measure samples of each class -> run/grid.png, and with held-out images run/metrics.json.

    pictures(labels, seed) -> uint8 (N, S, S, 3). through(x): images encoded and decoded again, which no sample of a
    latent model can surpass; how many of those the judge recognises stands beside its score of the samples.
    """
    labels = torch.arange(len(images.classes)).repeat_interleave(cfg.measure)
    drawn = pictures(labels, SEED_APART)
    show(run, images, drawn, labels)
    if val is None:
        print("no metrics.json: distances need real images that were not trained on (--val)")
        return
    judge = networks.load_network("tiny-features", device)
    numbers = measure(judge, images._replace(pixels=drawn, labels=labels), val, images, judge)
    decoded = val._replace(pixels=to_uint8(through(to_tensor(val.pixels).to(device))))
    for name, real in (("class_accuracy_real", val), ("class_accuracy_decoded", decoded)):
        if share := class_accuracy(judge, real):
            numbers[name] = share["class_accuracy"]
    write_atomic(run / "metrics.json", json.dumps(numbers, indent=2).encode() + b"\n")
    print(as_text(numbers))


def show(run, images: ImageSet, drawn: np.ndarray, labels: torch.Tensor) -> None:
    """run/grid.png: a few real images, what the model drew before training, and what it draws now."""
    names = images.classes[:COLUMNS]

    def table(pixels, of):
        return grid({name: list(pixels[of.numpy() == i][:ROWS]) for i, name in enumerate(names)})

    before = Image.open(run / "samples" / f"step_{0:06d}.png").convert("RGB")
    parts = {"images": table(images.pixels, images.labels), "before": before, "after": table(drawn, labels)}
    save_image(run / "grid.png", sections(parts))

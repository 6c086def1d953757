"""What a run ends with: a fresh set of samples, measured, in metrics.json and in a picture beside the real images."""
import json

import torch
from PIL import Image

from data import ImageSet
from data.atomic import write_atomic
from data.grid import grid, save_image, sections
from data.transforms import to_tensor
from metrics import features
from metrics.table import as_text, measure
from weights.load import SHIPPED

SHOWN = 4          # rows of the picture
SEED_APART = 1000  # between the seeds of the samples that are measured and those that were watched during training


def measure_samples(cfg, run, pictures, images: ImageSet, val: ImageSet, device) -> None:
    """cfg.measure samples of each class: run/metrics.json, the table on the screen, and run/grid.png.

    pictures(labels, seed) -> uint8 (N, S, S, 3). The grid shows real images, the model before training, and after it.
    """
    labels = torch.arange(len(images.classes)).repeat_interleave(cfg.measure)
    drawn = pictures(labels, SEED_APART)
    network, names = features.load(SHIPPED / "tiny-features" / "model.safetensors")
    fake, held_out, train = (to_tensor(pixels).to(device) for pixels in (drawn, val.pixels, images.pixels))
    numbers = measure(network.to(device), names, fake, labels, held_out, train, images.classes)
    numbers["network"] = "tiny-features"
    write_atomic(run / "metrics.json", json.dumps(numbers, indent=2).encode() + b"\n")
    print(as_text(numbers))
    shown = list(range(min(len(images.classes), 8)))
    parts = {"real": {i: images.pixels[images.labels.numpy() == i] for i in shown},
             "generated": {i: drawn[labels.numpy() == i] for i in shown}}
    parts = {title: grid({images.classes[i]: list(part[i][:SHOWN]) for i in shown}) for title, part in parts.items()}
    before = run / "samples" / f"step_{0:06d}.png"
    if before.exists():
        parts = {"few-shot images": parts["real"], "before": Image.open(before).convert("RGB"), "after": parts["generated"]}
    save_image(run / "grid.png", sections(parts))

"""What the recipes on pixels share: augmented batches, a held-out loss, and a model file at the end."""

import torch

from data import ImageSet, load
from data.source import held_out
from data.transforms import Transform, apply_variant, to_tensor, variants


def transform(cfg, size: int) -> Transform:
    """The config's way from a picture of any shape to (size, size, 3)."""
    return Transform(size, cfg.crop or None, cfg.resize)


def augmentations(cfg) -> list:
    """The variants of every image that the config's flips and rotations make."""
    try:
        degrees = tuple(float(text) for text in cfg.rotations.split(","))
    except ValueError:
        raise ValueError(f"rotations must be degrees with commas between, found {cfg.rotations!r}") from None
    return variants(cfg.flips, degrees)


def train_and_val(cfg, size: int) -> tuple[ImageSet, ImageSet | None]:
    """The training images, and the held-out ones if there is a source of them; both must have the same classes."""
    images, source = load(cfg.data, transform(cfg, size)), held_out(cfg.data, cfg.val)
    val = load(source, transform(cfg, size)) if source else None
    if val is not None and val.classes != images.classes:
        odd = sorted(set(val.classes) ^ set(images.classes))
        raise ValueError(f"{source}: held-out images must have the classes of {cfg.data}; {odd[0]!r} is in one only")
    return images, val


def pixel_batches(images: ImageSet, options: list):
    """batch(index, generator) -> x (B, 3, S, S) in [-1, 1], each image in a variant drawn for it, and labels y (B,)."""

    def batch(index, generator):
        pixels = to_tensor(images.pixels[index.numpy()])
        drawn = torch.randint(len(options), (len(index),), generator=generator)
        return {
            "x": torch.stack([apply_variant(x, options[v]) for x, v in zip(pixels, drawn)]),
            "y": images.labels[index],
        }

    return batch


@torch.no_grad()
def held_out_loss(batch, loss, count: int, device, size: int = 100) -> float:
    """Mean loss over `count` held-out images with noise that is the same at every call: the signal of overfitting."""
    total = 0.0
    for first in range(0, count, size):
        index = torch.arange(first, min(first + size, count))
        generator = torch.Generator().manual_seed(first)
        part = {key: value.to(device) for key, value in batch(index, generator).items()}
        total += loss(part, generator, 1.0)[0].item() * len(index)
    return total / count

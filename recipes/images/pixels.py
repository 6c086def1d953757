"""Images as they are trained on: training and held-out sets of one size, and batches of augmented pixels."""

import torch
from torch import Generator, Tensor

from config.training import Images
from data import ImageSet, load
from data.source import describe_shared, held_out, tell
from data.transforms import Transform, Variant, apply_variant, to_tensor
from recipes.job import Batch, Batches


def transform(images: Images, size: int, window: float = 0.0) -> Transform:
    """The way from a picture of any shape, or from a window of it, to (size, size, 3)."""
    return Transform(size, images.crop or None, images.resize, window)


def train_and_val(images: Images, val: str | None, size: int, window: float = 0.0) -> tuple[ImageSet, ImageSet | None]:
    """The training images, and the held-out ones if there are any.

    val: their source; "" for the val split of generated data; None for none. ValueError unless the classes agree.
    """
    train = load(images.data, transform(images, size, window))
    source = "" if val is None else held_out(images.data, val)
    held = load(source, transform(images, size, window)) if source else None
    if held is not None and held.classes != train.classes:
        odd = sorted(set(held.classes) ^ set(train.classes))
        raise ValueError(f"{source}: held-out images must have the classes of {images.data}; {odd[0]!r} is in one only")
    tell([], describe_shared(train, held) if held else "")
    return train, held


def pixel_batches(images: ImageSet, variants: list[Variant]) -> Batches:
    """batch(index, generator) -> x (B, 3, S, S) in [-1, 1], each image in a random variant, and labels y (B,)."""

    def batch(index: Tensor, generator: Generator) -> Batch:
        pixels = to_tensor(images.pixels[index.numpy()])
        chosen = torch.randint(len(variants), (len(index),), generator=generator)
        x = torch.stack([apply_variant(image, variants[v]) for image, v in zip(pixels, chosen)])
        return {"x": x, "y": images.labels[index]}

    return batch

"""Training images in aspect-ratio buckets (data/buckets.py): loaded each in its shape, and batches of one bucket."""

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import NamedTuple

import numpy as np
import torch
from torch import Generator, Tensor

import weights
from config.training import Images
from data import ImageSet
from data.buckets import STEP, describe_buckets, shapes, sorted_out
from data.folders.captions import Captioned
from data.source import load_items
from recipes.images.pixels import transform
from recipes.job import Batch, Batches


class Bucket(NamedTuple):
    """The images of one shape, and their numbers among all (n,)."""

    numbers: Tensor
    images: ImageSet


def in_buckets(
    settings: Images, items: Sequence[Captioned], squares: ImageSet, sd: weights.StableDiffusion
) -> list[Bucket]:
    """The items as images that keep their aspect ratio, for this model; prints a table of what went where.

    squares: the same images cropped to squares, which know the sides of the files. Raises ValueError for turns, which
    change a shape, and for generated images.
    """
    way, step = transform(settings, sd.side(settings.size)), sd.step
    if any(variant.degrees % 180 for variant in settings.variants()):
        raise ValueError("--buckets keeps the shape of an image, and turns change it: give --rotations 0, or 0,180")
    if squares.origins is None:
        raise ValueError("--buckets is for photographs of different shapes, and generated ones are squares")
    sides = [(height, width) for height, width, *_ in squares.origins.tolist()]
    choice = shapes(way.size, max(step, STEP) if way.size >= 4 * STEP else step)
    print(describe_buckets(sides, choice))
    buckets = []
    for shape, numbers in sorted_out(sides, choice).items():
        own, kinds = [items[i] for i in numbers], [items[i].caption for i in numbers]
        images = load_items(own, kinds, replace(way, size=shape), told=True)
        if images.masks is None and squares.masks is not None:
            images = images._replace(masks=np.zeros(images.pixels.shape[:3], bool))
        buckets.append(Bucket(torch.tensor(numbers), images))
    return buckets


def bucketed(buckets: list[Bucket], texts: list[str], batches_of: Callable[[ImageSet, list[str]], Batches]) -> Batches:
    """batch(index, generator) of image numbers that are all of one bucket. texts: of all images.

    batches_of(images, texts): the batches of a bucket's images by their place in it.
    """
    batches = [batches_of(images, [texts[i] for i in numbers.tolist()]) for numbers, images in buckets]
    place = {int(i): (b, at) for b, bucket in enumerate(buckets) for at, i in enumerate(bucket.numbers)}

    def batch(index: Tensor, generator: Generator) -> Batch:
        own, places = zip(*(place[i] for i in index.tolist()))
        assert len(set(own)) == 1, f"a batch has one shape, found images of the buckets {sorted(set(own))}"
        return batches[own[0]](torch.tensor(places), generator)

    return batch


def places_of(buckets: list[Bucket], places: Tensor) -> list[Tensor]:
    """For each bucket the places of a pass that its images have; places: the image at each place."""
    return [torch.isin(places, bucket.numbers).nonzero()[:, 0] for bucket in buckets]

"""The old class that looks most like a new one: where its row of the class table starts, by --class-init features.

    row_s = argmax_k cos(f_s, f_k)          f_s: mean feature of the images of the new class s

f_k is the mean feature of images of the old class k, or without any what the network knows of k by its name: CLIP its
features of the text "a photo of a k", tiny-features the row of its head that recognises k. Source: DriveDiTFit (Tu et
al. 2024, arXiv 2407.15661), which takes CLIP's means of images on both sides.
"""

from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F

from data import ImageSet
from data.lazy import blocks
from data.transforms import to_tensor
from dit.classes import last_part, row_of, words_of
from metrics.networks.features import embed, load_classifier
from metrics.networks.registry import load_network
from weights.formats.published import SHIPPED

CALLED = "class_init features"  # what errors begin with


class Space(NamedTuple):
    """Features of images, and of the names of classes."""

    images: Callable[[Tensor], Tensor]  # x (B, 3, S, S) in [-1, 1] -> (B, D), all of one length
    names: Callable[
        [list[str]], tuple[Tensor, list[int]]
    ]  # K names -> (K or more, D), and the place of each one's name

    def means(self, images: ImageSet) -> Tensor:
        """The mean of each class's features, (classes, D)."""
        f = torch.cat([self.images(to_tensor(block)) for block in blocks(images.pixels)])  # (N, D)
        return torch.stack([f[images.labels == i].mean(0) for i in range(len(images.classes))])


@torch.no_grad()
def similar_rows(
    images: ImageSet, known: ImageSet | None, old: list[str] | None, rows: int, network: str = ""
) -> list[int]:
    """The row of the old class most like each class of `images`.

    known: images of old classes, perhaps of some of them; None for their names. old: the names of the old classes, in
    the order of their `rows`; a checkpoint without names has those of `known`. network: "" or "patches" for
    tiny-features, else as --features names it. ValueError where nothing is known of the old classes.
    """
    space = tiny_space() if network in ("", "patches") else network_space(network)
    if old is None and (known is None or len(known.classes) != rows):
        raise ValueError(
            f"{CALLED}: the checkpoint names none of its {rows} classes; features:DATA takes images of {rows} classes, "
            f"in their order"
        )
    f_k, numbers = space.names(old) if known is None else shown(space, known, old)
    nearest = (F.normalize(space.means(images)) @ F.normalize(f_k).T).argmax(1)  # (classes,)
    return [numbers[k] for k in nearest.tolist()]


def shown(space: Space, known: ImageSet, old: list[str] | None) -> tuple[Tensor, list[int]]:
    """The mean features of the old classes that `known` shows (K, D), and their rows. ValueError if it shows none."""
    numbers = list(range(len(known.classes))) if old is None else [row_or_none(name, old) for name in known.classes]
    places = [k for k, row in enumerate(numbers) if row is not None]
    if not places:
        raise ValueError(
            f"{CALLED}: its images are of {', '.join(known.classes[:5])}, and the checkpoint knows other classes, as "
            f"{', '.join(old[:5])}"
        )
    return space.means(known)[places], [numbers[k] for k in places]


def row_or_none(name: str, old: list[str]) -> int | None:
    """The row of an old class, None for a class that is none of them. ValueError for a name of several."""
    try:
        return row_of(name, old)
    except ValueError as error:
        if "several" in str(error):
            raise ValueError(f"{CALLED}: {error}") from None
        return None


def tiny_space() -> Space:
    """tiny-features: features as the classifier's head reads them, and the rows of that head."""
    network, known = load_classifier(SHIPPED / "tiny-features" / "model.safetensors")

    def names(old: list[str]) -> tuple[Tensor, list[int]]:
        if unknown := [name for name in old if name not in known]:
            raise ValueError(
                f"{CALLED}: tiny-features does not know {unknown[0]!r}, a class of the checkpoint; features:DATA takes "
                f"images of its classes, and --features clip-vit-base-patch32 reads their names"
            )
        return network.head.weight[[known.index(name) for name in old]], list(range(len(old)))

    return Space(lambda x: F.relu(embed(network, x)[0]), names)


def network_space(spec: str) -> Space:
    """A network of the metrics; a CLIP knows names too, by every word that a class goes by."""
    network = load_network(spec)

    def names(old: list[str]) -> tuple[Tensor, list[int]]:
        if network.texts is None:
            raise ValueError(
                f"{CALLED}: {network.name} reads no names of classes, as a CLIP does; features:DATA takes images of "
                f"the checkpoint's classes"
            )
        words = [(word, row) for row, name in enumerate(old) for word in words_of(last_part(name))]
        return network.texts([f"a photo of a {word}" for word, _ in words]), [row for _, row in words]

    return Space(lambda x: F.normalize(network.embed(x)), names)

"""One source -> one ImageSet: every image is decoded and resized once, and has a label and a name.

A source is a folder (see folders/layouts.py) or `generated:PRODUCTS/SPLIT[/COUNT]`, the generated photographs:
generated:hazelnut/few/20, generated:base/base (`base` is all six base products, + joins several), or
generated:logo_on_black/few/12 (see generated/logos.py).
"""

import hashlib
import sys
from collections import Counter
from collections.abc import Iterable, Sequence
from pathlib import Path

import numpy as np
import torch
from tqdm import tqdm

from data.folders.captions import Captioned, Captions, describe_captions, read_captions
from data.folders.layouts import Item, recognise
from data.folders.tree import describe_unread, first_few
from data.generated import makers
from data.generated.photographs import SPLITS
from data.image_set import ImageSet
from data.images import decode_all, decode_mask, looks_like_mask
from data.split import parse as parse_part
from data.transforms import Transform

GENERATED = "generated:"
LOST = ((1.0, 2.0), (0.5, 1.0), (0.01, 0.5))  # shares of a mask: all of it, over half, some


def load(source: str, transform: Transform) -> ImageSet:
    """The images of a source at the transform's size. ValueError names every file that cannot be used.

    SOURCE#train:SHARE and SOURCE#val:SHARE are its two parts (split.py).
    """
    source, part = parse_part(source)
    if part is not None:
        images = load(source, transform)
        return images.at(part.of(images.names, images.labels.tolist()))
    if source.startswith(GENERATED):
        return load_generated(source, transform.size)
    layout = recognise(source)
    tell(layout.notes, describe_unread(Counter(layout.skipped)))
    images = load_items(layout.items, [item.label for item in layout.items], transform)
    return images._replace(parents=layout.parents)


def load_captioned(source: str, transform: Transform, template: str = "") -> tuple[ImageSet, Captions]:
    """The images of a source, or of its part, and their captions; the classes are the distinct captions.

    template: see folders/captions.py. Prints where the captions come from.
    """
    source, part = parse_part(source)
    if part is not None:
        images, captions = load_captioned(source, transform, template)
        index = part.of(images.names, [0] * len(images.names))
        return images.at(index), captions._replace(items=tuple(captions.items[i] for i in index))
    if source.startswith(GENERATED):
        images = load_generated(source, transform.size)
        captions = generated_captions(images.names)
    else:
        captions = read_captions(source, template)
        images = load_items(captions.items, [item.caption for item in captions.items], transform)
    print(describe_captions(captions))
    return images, captions


def classes_of(source: str) -> list[str]:
    """The classes of `load` in its order; no image is decoded."""
    source = parse_part(source)[0]
    if source.startswith(GENERATED):
        return [f"{product}/{state}" for product in parse(source)[0] for state in makers.states(product)]
    return recognise(source).classes


def captions_of(source: str, template: str = "") -> list[str]:
    """The captions of `load_captioned`, of all parts; no image is decoded."""
    source = parse_part(source)[0]
    if source.startswith(GENERATED):
        products, _, count = parse(source)
        return [makers.caption(p, state) for p in products for state in makers.states(p)] * count
    return [item.caption for item in read_captions(source, template).items]


def load_items(
    items: Sequence[Item | Captioned], classes: list[str], transform: Transform, told: bool = False
) -> ImageSet:
    """The images of N items at the transform's sides; `classes` (N,) names the class of each.

    told: what is worth knowing of them has been said before.
    """
    names = sorted(set(classes))
    number = {name: position for position, name in enumerate(names)}
    sizes, origins, like_masks = [], [], []
    pixels = np.empty((len(items), *transform.sides, 3), np.uint8)

    def measured(image: np.ndarray) -> np.ndarray:
        at = len(sizes)
        sizes.append(image.shape[:2])
        origins.append(transform.original(image.shape[:2]))
        like_masks.extend([items[at].path] * looks_like_mask(image))
        pixels[at] = transform(image)
        return pixels[at]

    decode_all(items, measured)
    tell([], "" if told else describe_like_masks(like_masks, len(items)))
    labels = torch.tensor([number[name] for name in classes])
    files, masks = [str(item.path) for item in items], load_masks(items, sizes, transform, told)
    return ImageSet(pixels, labels, names, files, masks, origins=np.array(origins))


def load_masks(
    items: Sequence[Item | Captioned], sizes: Sequence[tuple[int, int]], transform: Transform, told: bool = False
) -> np.ndarray | None:
    """The masks (N, H, W) bool of N items, True where the file is not 0; None if no item has a mask.

    sizes (N,): (height, width) of each item's image. Raises ValueError for a mask of another size than its image.
    """
    if all(item.mask is None for item in items):
        return None
    masks, lost = np.zeros((len(items), *transform.sides), bool), {}
    for i, (item, (height, width)) in enumerate(zip(items, sizes)):
        if item.mask is not None:
            mask = decode_mask(item.mask)
            if mask.shape != (height, width):
                raise ValueError(
                    f"{item.mask}: a mask is as large as its image; {item.path} is {width}x{height}, the "
                    f"mask {mask.shape[1]}x{mask.shape[0]}"
                )
            masks[i] = transform.mask(mask) > 0
            if mask.any():
                lost[item.path] = 1.0 if not masks[i].any() else transform.lost(mask > 0)
    tell([], "" if told else describe_lost(lost, transform.size))
    return masks


def describe_lost(lost: dict[Path, float], size: int) -> str:
    """What of the masks the crop cuts away, "" for nothing. lost: {image: share of its mask that is cut away}."""
    whole, most, some = ([path for path, share in lost.items() if low <= share < high] for low, high in LOST)
    if not whole and not most and not some:
        return ""
    parts = [(whole, "wholly"), (most, "by over half"), (some, "in part")]
    counts = ", ".join(f"{len(paths)} {words}" for paths, words in parts if paths)
    first = first_few([path.name for path in whole + most + some])
    return (
        f"of {len(lost)} masks these are cut away by the square crop, or by {size} pixels a side: {counts} ({first}); "
        "the images are trained on all the same: crop them around their masks"
    )


def describe_like_masks(paths: list[Path], count: int) -> str:
    """A warning of images that look like masks, "" for none. count: of all images."""
    if not paths:
        return ""
    first = first_few(["/".join(path.parts[-2:]) for path in paths])
    return (
        f"of {count} images these look like masks (a few colours, or black and white) and are used as photographs, "
        f"{first}; a mask of 1.png is 1_mask.png or masks/1.png"
    )


def describe_shared(train: ImageSet, held: ImageSet) -> str:
    """What is wrong with held-out images that are training images too, pixel by pixel; "" for none."""
    known = {hashlib.sha256(image.tobytes()).digest(): name for image, name in zip(train.pixels, train.names)}
    found = [known.get(hashlib.sha256(image.tobytes()).digest()) for image in held.pixels]
    shared = [f"{name} is {other}" for name, other in zip(held.names, found) if other is not None]
    if not shared:
        return ""
    return (
        f"{len(shared)} of {len(held.names)} held-out images are training images too ({shared[0]}), and say nothing of "
        "images that the model has not seen"
    )


def tell(notes: Sequence[str], *more: str) -> None:
    """Print what is worth knowing of a source, a line each; an empty text is none."""
    for note in filter(None, (*notes, *more)):
        print(f"note: {note}", file=sys.stderr)


def load_generated(source: str, size: int) -> ImageSet:
    """All classes of the products that a source names, COUNT images of each, computed at `size` pixels a side."""
    products, split, count = parse(source)
    pairs = [(product, state) for product in products for state in makers.states(product)]
    classes, parents = ["/".join(pair) for pair in pairs], {"/".join(pair): pair[0] for pair in pairs}
    wanted = [(label, index) for label in range(len(classes)) for index in range(count)]
    pixels = np.empty((len(wanted), size, size, 3), np.uint8)
    masks = np.empty((len(wanted), size, size), bool)
    for i, (label, index) in enumerate(tqdm(wanted, desc=source, disable=len(wanted) < 2000)):
        pixels[i], mask, _ = makers.image(*pairs[label], split, index, size)
        masks[i] = mask > 0
    labels = torch.tensor([label for label, _ in wanted])
    names = [f"{classes[label]}/{split}/{index}" for label, index in wanted]
    return ImageSet(pixels, labels, classes, names, masks, parents)


def generated_captions(names: Iterable[str]) -> Captions:
    """Captions of generated photographs from their names in an ImageSet, "product/state/split/index"."""
    parts = [name.split("/") for name in names]
    return Captions(tuple(Captioned(Path(*part), makers.caption(*part[:2]), 1, "the generator") for part in parts))


def parse(source: str) -> tuple[list[str], str, int]:
    """generated:PRODUCTS/SPLIT[/COUNT] -> (products, split, images of each class). ValueError lists the valid names."""
    parts = source.removeprefix(GENERATED).split("/")
    if len(parts) not in (2, 3) or parts[1] not in SPLITS:
        raise ValueError(f"{source!r} is not generated:PRODUCTS/SPLIT[/COUNT] with a split of {', '.join(SPLITS)}")
    products = [p for name in parts[0].split("+") for p in makers.GROUPS.get(name, (name,))]
    unknown = [p for p in products if p not in makers.MAKERS]
    if unknown:
        raise ValueError(
            f"{source!r}: no product {unknown[0]!r}; there are {', '.join(makers.MAKERS)} "
            f"and the groups {', '.join(makers.GROUPS)}"
        )
    if len(parts) == 3 and not (parts[2].isdigit() and int(parts[2]) > 0):
        raise ValueError(f"{source!r}: the count of images of each class must be a number above 0, found {parts[2]!r}")
    return products, parts[1], int(parts[2]) if len(parts) == 3 else SPLITS[parts[1]]


def held_out(source: str, val: str) -> str:
    """The source of held-out images: `val` if given, else the val split of generated products, else "" for none."""
    if val or not source.startswith(GENERATED):
        return val
    return f"{GENERATED}{source.removeprefix(GENERATED).split('/')[0]}/val"

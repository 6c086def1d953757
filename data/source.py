"""One source -> one ImageSet: every image is decoded and resized once, and has a label and a name.

A source is a folder (see folders/layouts.py) or `generated:PRODUCTS/SPLIT[/COUNT]`, the generated photographs:
generated:hazelnut/few/20, generated:base/base (`base` is all six base products, + joins several), or
generated:logo_on_black/few/12 (see generated/logos.py).
"""

import sys
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from tqdm import tqdm

from data.folders.captions import Captioned, Captions, describe_captions, read_captions
from data.folders.layouts import Item, recognise
from data.folders.tree import describe_unread, first_few
from data.generated import makers
from data.generated.photographs import SPLITS
from data.image_set import ImageSet
from data.images import decode, decode_mask, looks_like_mask, refuse
from data.lazy import HELD, Lazy, Strings, made, row_digests, workers
from data.split import parse as parse_part
from data.transforms import Transform
from data.window import Windows, windows

GENERATED = "generated:"
SHOWN = 2_000  # images of which the progress is shown
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
        return load_generated(source, whole(transform).size)
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
        images = load_generated(source, whole(transform).size)
        captions = generated_captions(images.names)
    else:
        captions = read_captions(source, template)
        images = load_items(captions.items, [item.caption for item in captions.items], transform)
    print(describe_captions(captions))
    return images, captions


def whole(transform: Transform) -> Transform:
    """The transform of generated images, which are made at their size. ValueError for one that cuts windows."""
    if transform.window:
        raise ValueError("a window is cut out of photographs in files, and generated ones are made at their size")
    return transform


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


class Look(NamedTuple):
    """What the first look at a photograph finds."""

    image: np.ndarray | None = None  # (S, S, 3) uint8; None for one that cannot be used
    mask: np.ndarray | None = None  # (S, S) bool
    like_mask: bool = False
    lost: float | None = None  # the share of a mask with anything in it that is cut away
    origin: tuple[int, ...] = ()  # of Transform.original
    fault: str = ""  # why the image cannot be used
    mask_fault: str = ""


def look(path: str, mask: str, transform: Transform, cut: Windows | None = None) -> Look:
    """The photograph of a file, or the window of it, and its mask, "" for none, which must be as large as its image."""
    try:
        decoded = decode(path)
    except ValueError as error:
        return Look(fault=str(error))
    like, found, mask_fault = looks_like_mask(decoded), None, ""
    try:
        found = decode_mask(mask) if mask else None
    except ValueError as error:
        mask_fault = str(error)
    if found is not None and found.shape != decoded.shape[:2]:
        (height, width), (high, wide) = decoded.shape[:2], found.shape
        mask_fault = f"{mask}: a mask is as large as its image; {path} is {width}x{height}, the mask {wide}x{high}"
    whole = 0 if found is None else np.count_nonzero(found)
    if cut and not mask_fault:
        square = cut.square(np.zeros(decoded.shape[:2]) if found is None else found, path)
        decoded, found = decoded[square], None if found is None else found[square]
    try:
        image, origin = transform(decoded), transform.original(decoded.shape[:2])
    except ValueError as error:
        return Look(fault=f"{path}: {error}")
    if mask_fault:
        return Look(image, None, like, mask_fault=mask_fault)
    if found is None:
        return Look(image, np.zeros(transform.sides, bool), like, origin=origin)
    at_size = transform.mask(found) > 0
    inside = np.count_nonzero(found) * (1 - transform.lost(found > 0)) if at_size.any() else 0
    lost = 1 - inside / whole if whole else None
    return Look(image, at_size, like, lost, origin)


def photograph(path: str, mask: str, transform: Transform, cut: Windows | None) -> np.ndarray:
    """The image of `look`."""
    decoded = decode(path)
    if cut is not None:
        decoded = decoded[cut.square(decode_mask(mask) if mask else np.zeros(decoded.shape[:2]), path)]
    return transform(decoded)


def mask_of(path: str, mask: str, transform: Transform, cut: Windows | None) -> np.ndarray:
    """The mask of `look`."""
    if not mask:
        return np.zeros(transform.sides, bool)
    found = decode_mask(mask)
    return transform.mask(found if cut is None else found[cut.square(found, path)]) > 0


def load_items(
    items: Sequence[Item | Captioned], classes: list[str], transform: Transform, told: bool = False
) -> ImageSet:
    """The images of N items at the transform's sides; `classes` (N,) names the class of each. Masks (N, H, W) are True
    where the file is not 0; None if no item has one.

    told: what is worth knowing of them has been said before. Raises ValueError that names all images that cannot be
    used, and for a mask of another size than its image.
    """
    names, count, sides = sorted(set(classes)), len(items), transform.sides
    number = {name: position for position, name in enumerate(names)}
    labels = torch.tensor([number[name] for name in classes])
    paths, masked = Strings(str(item.path) for item in items), any(item.mask is not None for item in items)
    masks = Strings(str(item.mask or "") for item in items) if masked else None
    cut = windows((decode_mask(mask) for mask in masks or () if mask), transform.window) if transform.window else None

    def row(i: int) -> tuple:
        return paths[i], masks[i] if masks else "", transform, cut

    images = room(photograph, row, (count, *sides, 3), np.uint8)
    shapes = masks and room(mask_of, row, (count, *sides), bool)
    origins = np.zeros((count, 4), np.int64)
    bad, like_masks, lost, mask_faults = [], [], {}, []
    with workers(count if isinstance(images, Lazy) else 0) as pool:
        looks = made(look, map(row, range(count)), pool)
        for i, found in enumerate(tqdm(looks, "looking at the images", count, disable=count < SHOWN)):
            bad += [found.fault] * bool(found.fault)
            mask_faults += [found.mask_fault] * bool(found.mask_fault)
            like_masks += [Path(paths[i])] * found.like_mask
            if not bad and not mask_faults:
                put(images, i, found.image)
                origins[i] = found.origin
                if masks:
                    put(shapes, i, found.mask)
            if found.lost is not None:
                lost[paths[i]] = found.lost
    refuse(bad, count)
    tell([], "" if told else describe_like_masks(like_masks, count))
    if mask_faults:
        raise ValueError(mask_faults[0])
    tell([], "" if told else describe_lost(lost, transform.size))
    return ImageSet(images, labels, names, paths, shapes, origins=origins)


def room(make: Callable, arguments: Callable[[int], tuple], shape: tuple[int, ...], dtype: type) -> np.ndarray | Lazy:
    """An array for rows make(*arguments(i)), to be filled by `put`; where it would be too large, rows that are made
    when they are asked for."""
    lazy = Lazy(make, arguments, shape, dtype)
    return lazy if lazy.nbytes > HELD else np.empty(shape, dtype)


def put(rows: np.ndarray | Lazy, i: int, row: np.ndarray) -> None:
    """The next row is kept, or its digest alone."""
    if isinstance(rows, Lazy):
        rows.note(row)
    else:
        rows[i] = row


def describe_lost(lost: dict[str, float], size: int) -> str:
    """What of the masks the crop cuts away, "" for nothing. lost: {image: share of its mask that is cut away}."""
    whole, most, some = ([path for path, share in lost.items() if low <= share < high] for low, high in LOST)
    if not whole and not most and not some:
        return ""
    parts = [(whole, "wholly"), (most, "by over half"), (some, "in part")]
    counts = ", ".join(f"{len(paths)} {words}" for paths, words in parts if paths)
    first = first_few([Path(path).name for path in whole + most + some])
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
    wanted = [bytes(digest) for digest in row_digests(held.pixels)]
    ours, every = set(wanted), zip(map(bytes, row_digests(train.pixels)), train.names)
    known = {digest: name for digest, name in every if digest in ours}
    found = list(map(known.get, wanted))
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
    total = len(pairs) * count

    def which(i: int) -> tuple:
        return *pairs[i // count], split, i % count, size

    pixels = room(generated_image, which, (total, size, size, 3), np.uint8)
    masks = room(generated_mask, which, (total, size, size), bool)
    with workers(total if isinstance(pixels, Lazy) else 0) as pool:
        both = made(generated_both, map(which, range(total)), pool)
        for i, (image, mask) in enumerate(tqdm(both, source, total, disable=total < SHOWN)):
            put(pixels, i, image)
            put(masks, i, mask)
    labels = torch.arange(len(classes)).repeat_interleave(count)
    names = Strings(f"{name}/{split}/{index}" for name in classes for index in range(count))
    return ImageSet(pixels, labels, classes, names, masks, parents)


def generated_both(product: str, state: str, split: str, index: int, size: int) -> tuple[np.ndarray, np.ndarray]:
    """A generated photograph (S, S, 3) uint8 and where its defect is (S, S) bool."""
    image, mask, _ = makers.image(product, state, split, index, size)
    return image, mask > 0


def generated_image(*which: str | int) -> np.ndarray:
    """The image of `generated_both`."""
    return generated_both(*which)[0]


def generated_mask(*which: str | int) -> np.ndarray:
    """The mask of `generated_both`."""
    return generated_both(*which)[1]


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

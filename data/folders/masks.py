"""The mask of each image, by file name. Masks leave the tree, so that no mask is taken for an image.

    beside     1.png and 1_mask.png, 1_label.bmp, 1_GT.png, gt_1.png, ...; 1.jpg and 1.png, which looks like a mask
    inside     1.png and masks/1.png, Label/1_label.png, ... (in there the stem may also be 1_mask and its like)
    sibling    photos/1.png and masks/1.png; JPEGImages/1.jpg and SegmentationClass/1.png; x/1.png and x_gt/1.png

The words that name a mask are in WORDS. `_mask` behind a stem, and a folder named mask or masks, are masks whatever
they hold. The other words may also name a photograph (of a label, of a seg), so there the content decides:
images.looks_like_mask. The masks of MVTec and DefectSpectrum trees (ground_truth/<defect>/, mask/<defect>/) stay in the
tree: layouts.py pairs them. source.load_masks, where both are decoded, checks that a mask is as large as its image.
"""

import re
from collections import defaultdict
from collections.abc import Iterable, Sequence
from pathlib import Path

from data.folders.tree import Node, first_few
from data.images import decode, looks_like_mask

FOLDERS = ("mask", "masks")
SUFFIX = "_mask"
# as published sets name masks: KolektorSDD, DAGM, VOC, CUB, BTAD, DeepCrack, ISIC, Oxford pets, ADE20K, ...
WORDS = (
    r"(?:masks?|gts?|ground[_\- ]?truths?|labels?|labelled|labeled|lab|segs?|segm|segmentations?|segmentationclass"
    r"|segmentationobject|annotations?|annots?|anno|trimaps?|manual)"
)
NAMED = re.compile(rf"(?:.+[_\-. ])?{WORDS}(?:[_\-. ]?\d+|[_\-. ].+)?", re.IGNORECASE)  # a folder
BEHIND = re.compile(rf"(.+?)[_\-. ]+{WORDS}(?:[_\-. ]?\d+)?", re.IGNORECASE)  # a stem
BEFORE = re.compile(rf"{WORDS}[_\-. ]+(.+)", re.IGNORECASE)
PHOTO = re.compile(r"(.+?)[_\-. ](?:sat|images?|img|rgb|photo|orig|original|input)", re.IGNORECASE)  # 1_sat and 1_mask
PROBED = 8  # files of which the content decides for a whole folder


def split_masks(node: Node) -> tuple[Node, dict[Path, Path], list[str]]:
    """(the tree without its masks, {image: its mask}, notes).

    Raises ValueError for masks that belong to no image, a mask that fits several images, an image with two masks.
    """
    folders, mask_of, notes = [], {}, []
    for folder in node.folders:
        if not _is_mask_folder(folder):
            inner, inner_masks, inner_notes = split_masks(folder)
            folders.append(inner)
            mask_of |= inner_masks
            notes += inner_notes
    images, pairs, own_notes = _beside(node.images)
    notes += own_notes
    owners = _by_stem([*images, *(image for folder in folders for image in folder.images)])
    for folder in filter(_is_mask_folder, node.folders):
        pairs += _inside(folder, owners)
    for image, mask in pairs:
        if image in mask_of:
            raise ValueError(f"{image} has two masks: {mask_of[image]} and {mask}")
        mask_of[image] = mask
    called = [folder for folder in folders if folder.images and not folder.folders and NAMED.fullmatch(folder.name)]
    for folder in called:
        photographs = _by_stem([*images, *(i for other in folders if other not in called for i in other.images)])
        matched = [mask for mask in folder.images if _owners_of(mask, photographs)]
        if 2 * len(matched) < len(folder.images) or not _all_masks(folder.images):
            continue
        folders = [other for other in folders if other is not folder]
        pairs = _inside(folder, photographs)
        further = [mask for image, mask in pairs if image in mask_of]
        if further:
            notes.append(f"second masks of images that have one are not read, {first_few(_names(further))}")
        mask_of |= {image: mask for image, mask in pairs if image not in mask_of}
    return node._replace(images=images, folders=tuple(folders)), mask_of, notes


def base_of(stem: str) -> str | None:
    """The stem of the image that a mask of this stem belongs to: "1_mask", "1_GT", "mask_1" -> "1"; None for no mask's
    name."""
    match = BEHIND.fullmatch(stem) or BEFORE.fullmatch(stem)
    return match[1] if match else None


def check_stems(node: Node) -> None:
    """ValueError that names all images of one folder, here and below, which differ in the suffix only (a.jpg, a.png).

    Which of them has the caption a.txt?
    """
    same = [paths for folder in _walk(node) for paths in _equal_stems(folder.images)]
    if same:
        names = [" and ".join(_names(sorted(paths, reverse=True))) for paths in same]
        where = same[0][0].parent
        raise ValueError(
            f"{where}: {first_few(names)} have the same name up to the suffix, and are not an image and its mask: "
            "rename or remove one of each"
        )


def _walk(node: Node) -> Iterable[Node]:
    yield node
    for folder in node.folders:
        yield from _walk(folder)


def _equal_stems(paths: Iterable[Path]) -> list[list[Path]]:
    by_stem = defaultdict(list)
    for path in paths:
        by_stem[path.stem].append(path)
    return [paths for paths in by_stem.values() if len(paths) > 1]


def _is_mask_folder(node: Node) -> bool:
    return node.name.lower() in FOLDERS and bool(node.images)


def _by_stem(images: Iterable[Path]) -> dict[str, list[Path]]:
    """{stem: the images that a mask of that name may belong to}; 1_sat is found under 1 too."""
    owners = defaultdict(list)
    for image in images:
        owners[image.stem].append(image)
        if match := PHOTO.fullmatch(image.stem):
            owners[match[1]].append(image)
    return owners


def _owners_of(mask: Path, owners: dict[str, list[Path]]) -> list[Path] | None:
    return owners.get(mask.stem) or owners.get(base_of(mask.stem) or "")


def _beside(paths: tuple[Path, ...]) -> tuple[tuple[Path, ...], list[tuple[Path, Path]], list[str]]:
    """(images, pairs (image, mask), notes) of one folder; iron_mask.png without an iron.png is an image."""
    by_stem, pairs, called = _by_stem(paths), [], []
    for path in paths:
        owners = [owner for owner in by_stem.get(base_of(path.stem) or "", ()) if owner != path]
        if owners:
            (pairs if path.stem.endswith(SUFFIX) else called).append((owners[0], path))
    proved = called if _all_masks([mask for _, mask in called]) else [pair for pair in called if _is_mask(pair[1])]
    pairs += proved
    odd = [mask for _, mask in called if mask not in {mask for _, mask in proved}]
    masks = {mask for _, mask in pairs}
    for same in _equal_stems(path for path in paths if path not in masks):  # exp1.jpg and exp1.png
        like = [path for path in same if _is_mask(path)]
        if len(like) == 1 and len(same) == 2:
            pairs.append((next(path for path in same if path not in like), like[0]))
    masks = {mask for _, mask in pairs}
    notes = [f"images named like masks, but not like one by their content, {first_few(_names(odd))}"] if odd else []
    return tuple(path for path in paths if path not in masks), pairs, notes


def _inside(folder: Node, owners: dict[str, list[Path]]) -> list[tuple[Path, Path]]:
    """The pairs (image, mask) of a mask folder."""
    if folder.folders:
        raise ValueError(f"{folder.path} is a folder of masks, yet it holds folders, {folder.folders[0].name}/ for one")
    pairs = [(_owners_of(mask, owners), mask) for mask in folder.images]
    lost = [mask.name for images, mask in pairs if not images]
    if lost:
        raise ValueError(f"{folder.path} is a folder of masks, but to no image belong {first_few(lost)}")
    for images, mask in pairs:
        if len(images) > 1:
            raise ValueError(f"{mask} could be the mask of {images[0]} and of {images[1]}: move it beside its image")
    return [(images[0], mask) for images, mask in pairs]


def _all_masks(paths: Sequence[Path]) -> bool:
    """Whether PROBED of the files, evenly spread over them, all look like masks."""
    return all(_is_mask(path) for path in paths[:: -(-len(paths) // PROBED) or 1])


def _is_mask(path: Path) -> bool:
    """Whether the file looks like a mask. One that cannot be decoded may be one: whoever decodes it says what it is."""
    try:
        return looks_like_mask(decode(path, (0, 0, 0)))
    except ValueError:
        return True


def _names(paths: Iterable[Path]) -> list[str]:
    return [path.name for path in paths]

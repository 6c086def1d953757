"""The mask of each image, by file name. Masks leave the tree, so that no mask is taken for an image.

    beside     1.png and 1_mask.png
    inside     1.png and masks/1.png (or mask/; in there the stem may also be 1_mask)
    sibling    photos/1.png and masks/1.png

A folder named mask or masks that holds images is a mask folder, never a class. The masks of MVTec and DefectSpectrum
trees (ground_truth/<defect>/, mask/<defect>/) stay in the tree: layouts.py pairs them. source.load_masks, where both
are decoded, checks that a mask is as large as its image.
"""

from collections import defaultdict
from pathlib import Path

from data.folders.tree import Node, first_few

FOLDERS = ("mask", "masks")
SUFFIX = "_mask"


def split_masks(node: Node) -> tuple[Node, dict[Path, Path]]:
    """(the tree without its masks, {image: its mask}).

    Raises ValueError for masks that belong to no image, a mask that fits several images, an image with two masks.
    """
    folders, mask_of = [], {}
    for folder in node.folders:
        if not _is_mask_folder(folder):
            inner, inner_masks = split_masks(folder)
            folders.append(inner)
            mask_of |= inner_masks
    images, pairs = _beside(node.images)
    owners = defaultdict(list)
    for image in [*images, *(image for folder in folders for image in folder.images)]:
        owners[image.stem].append(image)
    for folder in filter(_is_mask_folder, node.folders):
        pairs += _inside(folder, owners)
    for image, mask in pairs:
        if image in mask_of:
            raise ValueError(f"{image} has two masks: {mask_of[image]} and {mask}")
        mask_of[image] = mask
    return node._replace(images=images, folders=tuple(folders)), mask_of


def _is_mask_folder(node: Node) -> bool:
    return node.name.lower() in FOLDERS and bool(node.images)


def _beside(paths: tuple[Path, ...]) -> tuple[tuple[Path, ...], list[tuple[Path, Path]]]:
    """The images of one folder and the pairs (image, mask) in it; iron_mask.png without an iron.png is an image."""
    by_stem = {path.stem: path for path in paths}
    pairs = [
        (by_stem[path.stem.removesuffix(SUFFIX)], path)
        for path in paths
        if path.stem.endswith(SUFFIX) and path.stem.removesuffix(SUFFIX) in by_stem
    ]
    masks = {mask for _, mask in pairs}
    return tuple(path for path in paths if path not in masks), pairs


def _inside(folder: Node, owners: dict[str, list[Path]]) -> list[tuple[Path, Path]]:
    """The pairs (image, mask) of a mask folder. owners: {stem: the images that a mask of that name may belong to}."""
    if folder.folders:
        raise ValueError(f"{folder.path} is a folder of masks, yet it holds folders, {folder.folders[0].name}/ for one")
    pairs = [(owners.get(mask.stem) or owners.get(mask.stem.removesuffix(SUFFIX)), mask) for mask in folder.images]
    lost = [mask.name for images, mask in pairs if not images]
    if lost:
        raise ValueError(f"{folder.path} is a folder of masks, but to no image belong {first_few(lost)}")
    for images, mask in pairs:
        if len(images) > 1:
            raise ValueError(f"{mask} could be the mask of {images[0]} and of {images[1]}: move it beside its image")
    return [(images[0], mask) for images, mask in pairs]

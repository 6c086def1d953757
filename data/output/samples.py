"""A folder of samples: how sample.py names its files, and reading them back with the class of each."""

import re

import numpy as np
import torch

from data.folders.tree import read_tree
from data.images import decode_all
from data.images import read as read_image
from data.source import ImageSet, load
from data.transforms import Transform

GRID = "grid.png"  # the overview beside the samples


def file_names(names) -> list[str]:
    """Names that a file may have, different for different columns; image i of a column is NAME_00i.png."""
    plain = [re.sub(r"[^A-Za-z0-9]+", "_", name).strip("_")[:60] for name in names]
    return [f"{i:03d}_{name}" if plain.count(name) > 1 or not name else name for i, name in enumerate(plain)]


def smallest_side(folder) -> int:
    """The shortest side in pixels of all images of a folder and the folders in it, the overview aside."""
    nodes, sides = [read_tree(folder)], []
    while nodes:
        node = nodes.pop()
        nodes += node.folders
        sides += [min(read_image(path)[1].size) for path in node.images if path.name != GRID]
    if not sides:
        raise ValueError(f"{folder}: expected images, found none")
    return min(sides)


def read_samples(folder, transform: Transform, columns: list[str] | None = None) -> ImageSet:
    """The samples of a folder, without the overview. Their classes are those that tell the files apart:

    `columns`, what sample.py was asked to draw, in its order; without, the folders (see folders.py); of a flat folder
    the names before the last _NUMBER. ValueError for a file of none of the columns and for a column without files.
    """
    node = read_tree(folder)
    paths = [path for path in node.images if path.name != GRID]
    if not paths and columns is None:
        return load(str(folder), transform)
    if not paths:
        raise ValueError(f"{folder}: expected samples such as {file_names(columns)[0]}_000.png, found no image")
    stems = [re.sub(r"_\d+$", "", path.stem) for path in paths]
    known = dict(zip(file_names(columns), columns)) if columns else {stem: stem for stem in stems}
    odd = [path.name for path, stem in zip(paths, stems) if stem not in known]
    missing = [name for stem, name in known.items() if stem not in stems]
    if odd or missing:
        found = f"{odd[0]} belongs to none of them" if odd else f"there is none of {missing[0]!r}"
        raise ValueError(f"{folder}: expected samples of {', '.join(known.values())}; {found}")
    classes = list(dict.fromkeys(known.values()))
    labels = torch.tensor([classes.index(known[stem]) for stem in stems])
    return ImageSet(np.stack(decode_all(paths, transform)), labels, classes, [str(path) for path in paths])

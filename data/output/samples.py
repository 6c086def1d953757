"""A folder of samples: the names that sample.py gives its files, and the way back from files to images with classes."""

import re
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import torch

from data.folders.tree import read_tree
from data.image_set import ImageSet
from data.images import SUFFIXES, decode_all, read_image
from data.output.about import read_about
from data.source import load
from data.transforms import Transform

GRID = "grid.png"  # the overview beside the samples
OVERVIEW = 2**25  # bytes of the samples in it, at most, as long as it has
WIDE, HIGH = 12, 4  # columns and rows
CELL = 128  # pixels a side that a sample has in it at least


def file_names(columns: Sequence[str]) -> list[str]:
    """Names that a file may have, different for different columns; image i of a column is NAME_00i.png."""
    plain = [re.sub(r"[^A-Za-z0-9]+", "_", column).strip("_")[:60] for column in columns]
    return [f"{i:03d}_{name}" if plain.count(name) > 1 or not name else name for i, name in enumerate(plain)]


def overview(columns: int, count: int, side: int) -> tuple[int, int]:
    """(columns, rows) of the grid beside `count` samples of each of the columns: all, while they take no more than
    OVERVIEW bytes, and then the first. side: pixels of a sample."""
    cells = OVERVIEW // (3 * max(side, CELL) ** 2)
    wide = min(columns, max(WIDE, cells))
    return wide, min(count, max(HIGH, cells // wide))


def check_folder(out: Path, names: set[str], same: Callable[[object], bool], replace: bool) -> None:
    """ValueError for a folder that holds samples other than those of one call of sample.py.

    names: the files that it writes. same: whether an image with these settings is of such a call. replace: samples of
    other settings are removed instead.
    """
    for path in sorted(out.iterdir()) if out.is_dir() else []:
        if path.suffix.lower() not in SUFFIXES or path.name == GRID:
            continue
        own = read_about(path).get("settings") if path.suffix.lower() == ".png" else None
        if same(own) if isinstance(own, dict) else path.name in names or not re.search(r"_\d{3,}$", path.stem):
            continue  # of this call, of an earlier version and written anew, or no sample by its name
        if not isinstance(own, dict):
            raise ValueError(f"{out} holds {path.name}, a sample of another call: name another folder by --out")
        if not replace:
            raise ValueError(
                f"{out} holds {path.name}, a sample of other settings: name another folder by --out, or let its "
                f"samples go by --replace"
            )
        path.unlink()


def smallest_side(folder: str | Path) -> int:
    """The shortest side, in pixels, of all images in a folder and its folders, without the overview.

    Raises ValueError if there is no image.
    """
    sides = [min(read_image(path)[1].size) for path in read_tree(folder).all_images if path.name != GRID]
    if not sides:
        raise ValueError(f"{folder}: expected images, found none")
    return min(sides)


def read_samples(folder: str | Path, transform: Transform, columns: Sequence[str] | None = None) -> ImageSet:
    """The samples in a folder, without the overview, at the transform's size.

    Their classes are `columns`, the prompts or classes that sample.py was given, in that order. Without columns they
    are the folders in it (see folders/layouts.py), or in a flat folder the file names up to the last _NUMBER.

    Raises ValueError for a file that belongs to no column and for a column without files.
    """
    paths = [path for path in read_tree(folder).images if path.name != GRID]
    if not paths and columns is None:
        return load(str(folder), transform)
    if not paths:
        raise ValueError(f"{folder}: expected samples such as {file_names(columns)[0]}_000.png, found no image")
    stems = [re.sub(r"_\d+$", "", path.stem) for path in paths]
    column_of = dict(zip(file_names(columns), columns)) if columns else {stem: stem for stem in stems}
    odd = [path.name for path, stem in zip(paths, stems) if stem not in column_of]
    missing = [column for stem, column in column_of.items() if stem not in stems]
    if odd or missing:
        fault = f"{odd[0]} belongs to none of them" if odd else f"there is none of {missing[0]!r}"
        raise ValueError(f"{folder}: expected samples of {', '.join(column_of.values())}; {fault}")
    classes = list(dict.fromkeys(column_of.values()))
    labels = torch.tensor([classes.index(column_of[stem]) for stem in stems])
    return ImageSet(np.stack(decode_all(paths, transform)), labels, classes, [str(path) for path in paths])

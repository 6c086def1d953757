"""The superclass of each class: from the folders (superclass/class) or from a file of pairs.

    "crack" = "damaged"          one line a class in a .toml file
    {"crack": "damaged"}         one entry a class in a .json file

A file may name more classes than there are images of.
"""

import json
import tomllib
from pathlib import Path

from border import read_text
from data.image_set import ImageSet


def with_parents(images: ImageSet, file: str = "") -> ImageSet:
    """The same images with the superclass of each class in `parents`: from the file if one is named, else the folders.

    Raises ValueError for a file that cannot be read, a class without a superclass, and a name that is both.
    """
    parents, where = (read_hierarchy(file), file) if file else (images.parents, "the images' folders")
    alone = [name for name in images.classes if name not in parents]
    if alone:
        raise ValueError(
            f"{where}: no superclass of {len(alone)} of {len(images.classes)} classes "
            f"({', '.join(alone[:3])}); it takes superclass/class folders or --hierarchy FILE"
        )
    parents = {name: parents[name] for name in images.classes}
    both = sorted(set(parents.values()) & set(images.classes))
    if both:
        raise ValueError(f"{where}: {both[0]!r} is the name of a class and of a superclass")
    return images._replace(parents=parents)


def read_hierarchy(file: str) -> dict[str, str]:
    """{class: superclass} of a .toml or .json file. ValueError, with the file's name, for any other content."""
    parsers = {".toml": tomllib.loads, ".json": json.loads}
    if Path(file).suffix not in parsers:
        raise ValueError(f"{file}: a hierarchy is a .toml or .json file of class = superclass pairs")
    try:
        table = parsers[Path(file).suffix](read_text(file))
    except (OSError, ValueError, RecursionError) as error:  # both parsers' errors are ValueErrors
        raise ValueError(f"hierarchy {file}: {error}") from None
    if not isinstance(table, dict) or not all(isinstance(value, str) for value in table.values()):
        raise ValueError(f"{file}: expected one superclass name for each class name, found {str(table)[:80]}")
    return table

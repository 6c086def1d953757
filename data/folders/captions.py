"""The caption of every image in a folder, for training on text, and where each caption comes from.

    metadata     root/metadata.jsonl or root/metadata.csv: one row for each image, its file_name and its text
    sidecar      1.png and 1.txt (or 1.caption) beside it: the first line, as kohya's sd-scripts read it
    folder name  root/<repeats>_<token class>/*.png, kohya's too: "token class", each image shown `repeats` times
    template     root/*.png and "a photo of sks dog" (DreamBooth: one call for the instance, one for the class images),
                 or any layout of layouts.py and "a photo of a {superclass} with a {class}"

Metadata has the captions of all images or of none. Without it, an image takes the caption of its sidecar, else the
folder name, else the template. In a template {class} and {superclass} are the names of the folders, with spaces for
underscores; {class} of an iNaturalist species is genus and epithet. A caption loses the spaces at its ends and does not
change otherwise.
"""

import re
from collections import Counter, defaultdict
from collections.abc import Iterable
from pathlib import Path
from typing import NamedTuple

from data.folders.caption_files import checked, read_metadata, read_sidecar
from data.folders.layouts import SPECIES, Item, match_tree
from data.folders.masks import check_stems, split_masks
from data.folders.tree import Node, describe_unread, draw_tree, first_few, read_tree

METADATA = ("metadata.jsonl", "metadata.csv")
SIDECARS = (".txt", ".caption")
MAX_REPEATS = 9_999  # above it stands a date or an id
KOHYA = re.compile(r"([0-9]+)_([^/]+)")
FIELD = re.compile(r"\{([^{}]*)\}")


class Captioned(NamedTuple):
    """One image with its caption, `repeats` times in a pass. origin: metadata.jsonl, sidecar .txt, folder name, ..."""

    path: Path
    caption: str
    repeats: int
    origin: str
    mask: Path | None = None


class Captions(NamedTuple):
    """The images of a source in the order of their paths. notes: what the folder holds and nothing uses."""

    items: tuple[Captioned, ...]
    notes: tuple[str, ...] = ()

    @property
    def places(self) -> list[int]:
        """The index of the image at each place of a pass; an image has as many places as repeats."""
        return [i for i, item in enumerate(self.items) for _ in range(item.repeats)]


def read_captions(root: str | Path, template: str = "") -> Captions:
    """All images under `root` with their captions and masks. An empty template is no template.

    Raises ValueError naming the files: images without a caption, a caption that is empty, no text or too long, a file
    that is not UTF-8, rows and images that do not match, a tree in no layout of this module or layouts.py.
    """
    node, mask_of, told = split_masks(read_tree(root))
    images = node.all_images
    if not images:
        raise ValueError(f"{root}: there is no image in it\nfound:\n{draw_tree(node)}")
    _check_template(template)
    sidecars, notes = _find_sidecars(images)
    notes += told + list(filter(None, [describe_unread(node.all_skipped)]))
    if (file := _metadata_file(node.path, images)) is not None:
        captions = read_metadata(file, images)
        items = [Captioned(path, captions[path], 1, file.name) for path in images]
        notes += [f"{len(sidecars)} sidecar files are not read: {file.name} wins"] * bool(sidecars)
    else:
        check_stems(node)
        placed, unread = _place(node, template)
        items, unused = _caption_each(placed, sidecars, template, node.path)
        notes += unread + unused
        mask_of |= {item.path: item.mask for item in placed if item.mask is not None}
    if template and all(item.origin != "template" for item in items):
        notes.append("the template is used for no image")
    items = sorted(items, key=lambda item: item.path.relative_to(node.path).parts)
    return Captions(tuple(item._replace(mask=mask_of.get(item.path)) for item in items), tuple(notes))


def describe_captions(captions: Captions, examples: int = 3) -> str:
    """ "20 images: 18 captions from sidecar .txt, 2 from the template", then the first captions and the notes."""
    items = captions.items
    called = {"folder name": "the folder name", "template": "the template"}
    counts = [(called.get(origin, origin), n) for origin, n in Counter(item.origin for item in items).most_common()]
    sources = ", ".join(f"{n}{' captions' * (i == 0)} from {origin}" for i, (origin, n) in enumerate(counts))
    masks, shown = sum(item.mask is not None for item in items), sum(item.repeats for item in items)
    head = f"{len(items)} images: {sources}" + f"; {masks} masks" * bool(masks)
    head += f"; {shown} with their repeats" * (shown != len(items))
    lines = [f"  {'/'.join(item.path.parts[-2:])}: {item.caption[:100]!r}" for item in items[:examples]]
    return "\n".join([head, *lines, *(f"note: {note}" for note in captions.notes)])


def _place(node: Node, template: str) -> tuple[list[Item], list[str]]:
    """(items, notes) of a flat folder, whose images have no class, or of a layout of layouts.py."""
    inside = node.all_images[len(node.images) :]
    if node.images and inside:
        raise ValueError(
            f"{node.path}: {len(node.images)} images lie directly in it and {len(inside)} in its folders: "
            f"without a {METADATA[0]} it is one or the other\nfound:\n{draw_tree(node)}"
        )
    if node.images:
        return [Item(path, "") for path in node.images], []
    try:
        kind, items, notes = match_tree(node, "class")
        if kind == "two-level":
            _refuse_kohya_below(items)
    except ValueError as error:
        raise ValueError(f"{node.path}: {error}\nfound:\n{draw_tree(node)}") from None
    return items, notes


def _caption_each(
    items: list[Item], sidecars: dict[Path, Path], template: str, root: Path
) -> tuple[list[Captioned], list[str]]:
    """(items with their captions, notes): sidecar before folder name before template."""
    words = folder_words({item.label for item in items}, template)
    captioned, without, longer = [], [], []
    for item in items:
        repeats, name = words.get(item.label, (1, ""))
        if (file := sidecars.get(item.path)) is not None:
            caption, more = read_sidecar(file)
            captioned.append(Captioned(item.path, caption, repeats, f"sidecar {file.suffix.lower()}"))
            longer += [file.name] * more
        elif name:
            captioned.append(Captioned(item.path, name, repeats, "folder name"))
        elif template:
            captioned.append(Captioned(item.path, fill(template, item), 1, "template"))
        else:
            without.append(item.path.relative_to(root).as_posix())
    if without:
        raise ValueError(
            f"{root}: of {len(items)} images these have no caption, {first_few(without)}; give a template, a "
            f".txt beside each, or a {METADATA[0]}"
        )
    return captioned, [f"only the first line is the caption in {first_few(longer)}"] if longer else []


def _find_sidecars(images: list[Path]) -> tuple[dict[Path, Path], list[str]]:
    """{image: the .txt or .caption file beside it}, and a note on those that no image has."""
    by_stem = defaultdict(list)
    for folder in {path.parent for path in images}:
        for path in folder.iterdir():
            if path.suffix.lower() in SIDECARS and not path.name.startswith(".") and path.is_file():
                by_stem[folder / path.stem].append(path)
    sidecars = {}
    for image in images:
        files = sorted(by_stem.pop(image.parent / image.stem, []))
        if len(files) > 1:
            raise ValueError(f"{image} has two captions, {files[0].name} and {files[1].name}: remove one")
        if files:
            sidecars[image] = files[0]
    lost = sorted(path.name for paths in by_stem.values() for path in paths)
    return sidecars, [f"caption files of no image, {first_few(lost)}"] if lost else []


def folder_words(names: Iterable[str], template: str = "") -> dict[str, tuple[int, str]]:
    """kohya's folder names: {"10_sks dog": (10, "sks dog")}; {} where no name is one.

    Raises ValueError if some names are and some are not, for 0 or over MAX_REPEATS repeats, and where the template
    asks for a {class}, because then the names would be two things at once.
    """
    matches = {name: KOHYA.fullmatch(name) for name in sorted(names) if not SPECIES.fullmatch(name)}
    plain = [name for name, match in matches.items() if match is None]
    kohya = {name: (int(match[1]), checked(match[2], f"folder {name}/")) for name, match in matches.items() if match}
    if not kohya:
        return {}
    first = next(iter(kohya))
    if plain:
        raise ValueError(f"{first}/ is named <repeats>_<caption> and {plain[0]}/ is not: rename one of them")
    for name, (repeats, _) in kohya.items():
        if not 1 <= repeats <= MAX_REPEATS:
            raise ValueError(f"{name}/ is named <repeats>_<caption>; repeats are 1..{MAX_REPEATS}, found {repeats}")
    if FIELD.search(template):
        raise ValueError(
            f"{first}/ is named <repeats>_<caption>, so it is no class for the template {template!r}: "
            f"rename the folder or leave out the template"
        )
    return kohya


def _refuse_kohya_below(items: list[Item]) -> None:
    below = sorted({item.parent for item in items if KOHYA.fullmatch(item.label.removeprefix(f"{item.parent}/"))})
    if below:
        raise ValueError(
            f"folders named <repeats>_<caption> lie in {' and '.join(f'{name}/' for name in below)}: "
            f"point at {'it' if len(below) == 1 else 'one of them'}"
        )


def fill(template: str, item: Item) -> str:
    """The template with the item's {class} and {superclass}; ValueError if it has none."""
    names = {"class": item.label.split("/")[-1], "superclass": item.parent or ""}
    if SPECIES.fullmatch(item.label):
        names["class"] = " ".join(item.label.split("_")[6:])
    for field in FIELD.findall(template):
        if not names[field]:
            raise ValueError(
                f"the template {template!r} asks for a {field}, but {item.path} has none: its layout has no such folder"
            )
    return checked(FIELD.sub(lambda field: names[field[1]].replace("_", " "), template), f"template {template!r}")


def _check_template(template: str) -> None:
    fields = FIELD.findall(template)
    if set(fields) - {"class", "superclass"} or set("{}") & set(FIELD.sub("", template)):
        raise ValueError(f"the template {template!r} may hold {{class}} and {{superclass}}, and no other braces")
    if template:
        checked(template, "template")


def _metadata_file(root: Path, images: list[Path]) -> Path | None:
    above = {folder for image in images for folder in image.parents if folder.is_relative_to(root)}
    there = sorted(folder / name for folder in above for name in METADATA if (folder / name).is_file())
    if not there or there == [root / there[0].name]:
        return there[0] if there else None
    raise ValueError(
        f"{root}: one metadata file, in the folder itself, speaks for all its images; found "
        f"{first_few([path.relative_to(root).as_posix() for path in there])}"
    )

"""A folder, read once into a tree: which files are images, which are skipped and counted, which are refused."""

import os
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from data.images import SUFFIXES, image_format

# of images, as cameras and tools write them, that no reader here takes
UNREAD = frozenset(
    ".heic .heif .avif .gif .psd .xcf .raw .dng .cr2 .cr3 .nef .arw .orf .rw2 .jp2 .j2k .jxl .jxr .svg .exr .hdr .tga "
    ".pcx .ppm .pgm .pbm .ico .eps .dcm .fits .npy .mat".split()
)
LITTER = ("thumbs.db", "desktop.ini", "__macosx")  # what Windows and macOS leave behind
ARCHIVES = (b"PK\x03\x04", b"\x1f\x8b", b"7z\xbc\xaf", b"Rar!", b"BZh", b"\xfd7zXZ")  # the first bytes of each
DEPTH = 6  # the deepest layout has 4 levels; the bound also ends a symbolic link that leads to its own parent


class Node(NamedTuple):
    """One folder: its images and folders, sorted by name, and how many files were skipped in it for each reason."""

    path: Path
    images: tuple[Path, ...]
    folders: tuple["Node", ...]
    skipped: Counter

    @property
    def name(self) -> str:
        """The last part of the path."""
        return self.path.name

    def folder(self, name: str) -> "Node | None":
        """The folder of that name directly in this one, in any capitals where none has just these, or None."""
        called = [node for node in self.folders if node.name.lower() == name.lower()]
        return next((node for node in called if node.name == name), called[0] if called else None)

    @property
    def all_images(self) -> list[Path]:
        """The images of this folder, then those of each folder below it."""
        return [*self.images, *(image for node in self.folders for image in node.all_images)]

    @property
    def all_skipped(self) -> Counter:
        """{reason: skipped files} of this folder and all below it."""
        return sum((node.all_skipped for node in self.folders), self.skipped)


def read_tree(root: str | Path) -> Node:
    """The tree under `root`, in the order of names and never in that of the file system. A file is an image by its
    suffix (any case), or by its first bytes where the suffix is not an image's; images.py finds out whether it decodes.

    Raises ValueError for a root that is no folder and a symbolic link that leaves the root or leads nowhere.
    """
    if not Path(root).is_dir():
        raise ValueError(f"{root}: {describe_no_folder(str(root))}")
    root = Path(root).resolve()
    return _read(root, root, DEPTH)


def _read(path: Path, root: Path, depth: int) -> Node:
    images, folders, skipped = [], [], Counter()
    with os.scandir(path) as entries:
        for entry in sorted(entries, key=lambda entry: entry.name):
            if entry.name.startswith("."):
                skipped["hidden"] += 1
                continue
            if entry.name.lower() in LITTER:
                skipped[entry.name] += 1
                continue
            if entry.is_symlink():
                _check_link(Path(entry.path), root)
            if entry.is_dir():
                if depth:
                    folders.append(_read(Path(entry.path), root, depth - 1))
            elif _is_image(entry):
                images.append(Path(entry.path))
            else:
                skipped[Path(entry.name).suffix.lower() or "no suffix"] += 1
    return Node(path, tuple(images), tuple(folders), skipped)


def _is_image(entry: os.DirEntry) -> bool:
    if not entry.is_file():  # a pipe or a device: opening it could wait for ever
        return False
    if Path(entry.name).suffix.lower() in SUFFIXES:
        return True
    with open(entry.path, "rb") as file:
        return image_format(file.read(12)) is not None


def _check_link(path: Path, root: Path) -> None:
    target = path.resolve()
    if not target.is_relative_to(root):
        raise ValueError(f"{path}: a symbolic link that leaves {root} (it leads to {target})")
    if not target.exists():
        raise ValueError(f"{path}: a symbolic link that leads nowhere ({target})")


def draw_tree(node: Node, indent: str = "  ", depth: int = 3, width: int = 4) -> str:
    """Lines for an error message: the first folders of each level with their numbers of images."""
    lines = []
    for folder in node.folders[:width]:
        lines.append(f"{indent}{folder.name}/  {_counts(folder)}")
        if depth > 1 and folder.folders:
            lines.append(draw_tree(folder, indent + "  ", depth - 1, width))
    if len(node.folders) > width:
        lines.append(f"{indent}... and {len(node.folders) - width} more folders")
    if node.images:
        first = ", ".join(path.name for path in node.images[:3])
        lines.append(f"{indent}{len(node.images)} images: {first}{', ...' if len(node.images) > 3 else ''}")
    return "\n".join(lines) if lines else f"{indent}(no folder, no image)"


def _counts(node: Node) -> str:
    parts = [f"{len(node.folders)} folders"] if node.folders else []
    parts += [f"{len(node.images)} images"] if node.images or not node.folders else []
    return ", ".join(parts + [f"{n} skipped ({reason})" for reason, n in sorted(node.skipped.items())])


def describe_unread(skipped: Counter) -> str:
    """ "3 images of kinds that are not read: 2 .heic, 1 .gif", "" for none. skipped: {reason: files} of a tree."""
    unread = {reason: n for reason, n in sorted(skipped.items()) if reason in UNREAD}
    kinds = ", ".join(f"{n} {reason}" for reason, n in unread.items())
    return f"{sum(unread.values())} images of kinds that are not read: {kinds}" if unread else ""


def describe_no_folder(text: str) -> str:
    """What a text is that should name a folder of images and does not."""
    if text.startswith(("http://", "https://")):
        return "an address, expected a folder: download it and name the folder"
    if not Path(text).exists():
        quoted = ": write your home folder out, ~ stands for it only where nothing is before it and no quotes are"
        return f"no such folder{quoted if text.startswith('~') else ''}"
    if not Path(text).is_file():
        return "not a folder"
    with open(text, "rb") as file:
        head = file.read(12)
    if head.startswith(ARCHIVES):
        return "not a folder but an archive: unpack it and name the folder"
    return f"not a folder but {'an image' if image_format(head) else 'a file'}: name the folder of the images"


def first_few(names: Sequence[str], limit: int = 3) -> str:
    """ "4: a, b, c, ...": how many names and the first of them, for an error of one line."""
    return f"{len(names)}: " + ", ".join(names[:limit]) + (", ..." if len(names) > limit else "")

"""The layout of a folder of labelled images, and its items: path, class, superclass, mask.

    classes           root/<class>/*.png
    two-level         root/<superclass>/<class>/*.png
    mvtec             [root/]<product>/{train/good, test/<defect>, ground_truth/<defect>/*_mask.png}
    defect-spectrum   [root/][DS-MVTec/]<product>/{image/<defect>, mask/<defect>/*_mask.png}, or images/ and masks/
    inaturalist       root/<id>_<kingdom>_<phylum>_<class>_<order>_<family>_<genus>_<epithet>/*.jpg

In the other layouts a mask lies beside its image or in a folder of masks, see masks.py; under mask/<defect> and
ground_truth/<defect> it may also have the name of its image alone. A layout is recognised as a whole or refused: the
error shows the tree and the nearest valid one.
"""

import re
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

from data.folders.masks import FOLDERS, base_of, check_stems, split_masks
from data.folders.tree import Node, draw_tree, read_tree

RANKS = ("kingdom", "phylum", "class", "order", "family", "genus")
SPECIES = re.compile(r"\d+_[A-Z][^_]*(_[^_]+){6,}")  # an epithet may hold more underscores
SPLITS = ("train", "test", "val", "valid", "validation")
IMAGES = ("image", "images")  # the parts of a product in the layout of DefectSpectrum
MASKS = ("mask", "masks", "ground_truth", "gt", "segmentations", "segmentation", "labels", "label", "annotations")
LAYOUTS = __doc__.split("\n\n")[1]


class Item(NamedTuple):
    """One image: its file, class ("crack", "hazelnut/crack"), superclass and mask file."""

    path: Path
    label: str
    parent: str | None = None
    mask: Path | None = None


class Layout(NamedTuple):
    """A recognised folder: `kind` as in the module's table, items sorted by path, {reason: skipped files}, notes."""

    kind: str
    root: Path
    items: tuple[Item, ...]
    skipped: dict[str, int]
    notes: tuple[str, ...] = ()

    @property
    def classes(self) -> list[str]:
        """Class names, sorted: the position of a name is its class index."""
        return sorted({item.label for item in self.items})

    @property
    def parents(self) -> dict[str, str]:
        """class -> superclass; empty for a layout without superclasses."""
        return {item.label: item.parent for item in self.items if item.parent is not None}


def recognise(root: str | Path, rank: str = "class") -> Layout:
    """The folder `root` as one of the layouts of this module. rank: the superclass of iNaturalist's species.

    Raises ValueError for any other tree, an empty class folder (named), and what `read_tree` refuses.
    """
    if rank not in RANKS:
        raise ValueError(f"rank must be one of {', '.join(RANKS)}; found {rank!r}")
    node = read_tree(root)
    try:
        kind, items, notes = match_tree(node, rank)
    except ValueError as error:
        raise ValueError(f"{root}: {error}\nfound:\n{draw_tree(node)}\n{_nearest(node, rank)}") from None
    if len(items) == 1:
        notes.append("one image in total")
    items = sorted(items, key=lambda item: item.path.relative_to(node.path).parts)
    return Layout(kind, node.path, tuple(items), dict(sorted(node.all_skipped.items())), tuple(notes))


def describe_layout(layout: Layout, limit: int = 40) -> str:
    """Lines of text: kind, superclasses, classes with their images and masks, skipped files, notes."""
    images = Counter(item.label for item in layout.items)
    masks = Counter(item.label for item in layout.items if item.mask is not None)
    parents = sorted(set(layout.parents.values()))
    head = f"{layout.kind}: {len(images)} classes, {len(layout.items)} images, {sum(masks.values())} masks"
    lines = [f"{head} in {layout.root}"]
    if parents:
        names = ", ".join(parents[:limit]) + (", ..." if len(parents) > limit else "")
        lines.append(f"{len(parents)} superclasses: {names}")
    wide = max(len(label) for label in images)
    for label in layout.classes[:limit]:
        counts = f"{images[label]:6d} images" + (f"{masks[label]:6d} masks" if masks[label] else "")
        lines.append(f"  {label:{wide}}{counts}")
    if len(images) > limit:
        lines.append(f"  ... and {len(images) - limit} more classes")
    if layout.skipped:
        lines.append("skipped: " + ", ".join(f"{n} {reason}" for reason, n in layout.skipped.items()))
    return "\n".join(lines + [f"note: {note}" for note in layout.notes])


def match_tree(node: Node, rank: str) -> tuple[str, list[Item], list[str]]:
    """(kind, items, notes) of a tree. ValueError with the reason if it has no layout of this module."""
    if node.images:
        raise ValueError(f"{len(node.images)} images lie directly in the folder, so they have no class")
    if not node.folders:
        raise ValueError("there is no class folder in it")
    for kind, is_product, parts, truths in PRODUCT_LAYOUTS:
        if is_product(node):
            return kind, *_products([node], parts, truths)
        products = [folder for folder in node.folders if is_product(folder)]
        if products and len(products) < len(node.folders):
            other = next(folder.name for folder in node.folders if folder not in products)
            raise ValueError(f"{products[0].name}/ is a product of the {kind} layout, but {other}/ is not")
        if products:
            return kind, *_products(products, parts, truths)
    if (wrapped := node.folder("DS-MVTec")) is not None:
        left = [folder.name for folder in node.folders if folder is not wrapped]
        kind, items, notes = match_tree(wrapped, rank)
        return kind, items, notes + ([f"only DS-MVTec is read, not {', '.join(left)}"] if left else [])
    node, mask_of, told = split_masks(node)
    check_stems(node)
    kind, items, notes = _match_classes(node, rank)
    return kind, [item._replace(mask=mask_of.get(item.path)) for item in items], notes + told


def _match_classes(node: Node, rank: str) -> tuple[str, list[Item], list[str]]:
    splits = [folder.name for folder in node.folders if folder.name.lower() in SPLITS and folder.folders]
    if splits:
        raise ValueError(f"{splits[0]}/ is the name of a split and not of a class: point at one split")
    nested = [folder for folder in node.folders if folder.folders]
    if not nested:
        if all(SPECIES.fullmatch(folder.name) for folder in node.folders):
            part = 1 + RANKS.index(rank)
            return "inaturalist", _items(node.folders, lambda f: (f.name, f.name.split("_")[part])), []
        return "classes", _items(node.folders, lambda folder: (folder.name, None)), []
    if len(nested) < len(node.folders):
        flat = next(folder.name for folder in node.folders if not folder.folders)
        raise ValueError(f"{flat}/ holds images itself and {nested[0].name}/ holds folders")
    items, notes = [], []
    for parent in node.folders:
        if parent.images:
            raise ValueError(f"{parent.name}/ holds both images and folders")
        deep = next((folder.name for folder in parent.folders if folder.folders), None)
        if deep is not None:
            raise ValueError(f"{parent.name}/{deep}/ is a third level of folders")
        items += _items(parent.folders, lambda folder, name=parent.name: (f"{name}/{folder.name}", name))
    if len(node.folders) == 1:
        name = node.folders[0].name
        notes.append(f"there is one superclass, {name}; if {name}/ is a mere wrapper, point at it")
    return "two-level", items, notes


def _items(folders: tuple[Node, ...], name_of: Callable, masks: Node | None = None) -> list[Item]:
    """Items of class folders. name_of(folder) -> (label, parent); masks: the folder of <class>/<stem>[_mask].png."""
    items = []
    for folder in folders:
        label, parent = name_of(folder)
        if folder.folders:
            raise ValueError(f"class folder {folder.path} holds folders, {folder.folders[0].name}/ for one")
        if not folder.images:
            skipped = ", ".join(f"{n} {reason}" for reason, n in sorted(folder.skipped.items()))
            raise ValueError(f"class folder {folder.path} holds no image" + (f" (skipped: {skipped})" * bool(skipped)))
        there = masks.folder(folder.name) if masks else None
        mask_of = {path.stem: path for path in there.images} if there else {}
        mask_of |= {base: path for stem, path in mask_of.items() if (base := base_of(stem))}
        items += [Item(path, label, parent, mask_of.get(path.stem)) for path in folder.images]
    return items


def _is_mvtec(node: Node) -> bool:
    train, test = node.folder("train"), node.folder("test")
    normal_only = train is not None and [folder.name for folder in train.folders] == ["good"]
    return normal_only or (test is not None and bool(test.folders) and node.folder("ground_truth") is not None)


def _is_spectrum(node: Node) -> bool:
    images = [folder for folder in map(node.folder, IMAGES) if folder is not None and folder.folders]
    masks = [(name, folder) for name in MASKS if (folder := node.folder(name)) is not None]
    return bool(images) and any(name in FOLDERS or folder.folders for name, folder in masks)


PRODUCT_LAYOUTS = (  # kind, whether a folder is a product of it, folders of its images and of its masks
    ("mvtec", _is_mvtec, ("train", "test"), ("ground_truth",)),
    ("defect-spectrum", _is_spectrum, IMAGES, MASKS),
)


def _products(products: list[Node], parts: tuple[str, ...], truths: tuple[str, ...]) -> tuple[list[Item], list[str]]:
    """(items, notes): class = product/defect, superclass = product. train/good and test/good are one class."""
    items, unread, masks = [], Counter(), 0
    for product in products:
        truth = next((folder for name in truths if (folder := product.folder(name)) and folder.all_images), None)
        for part in filter(None, map(product.folder, parts)):
            items += _items(part.folders, lambda f, name=product.name: (f"{name}/{f.name}", name), truth)
        masks += sum(len(folder.images) for folder in truth.folders) if truth else 0
        unread.update(f.name for f in product.folders if f.name.lower() not in (*parts, *truths))
    notes = [f"{name}/ of {n} product(s) is not read" for name, n in sorted(unread.items())]
    lost = masks - sum(item.mask is not None for item in items)
    return items, notes + ([f"{lost} masks belong to no image"] if lost else [])


def _nearest(node: Node, rank: str) -> str:
    """For an error: a folder below `node` that has a layout, else the list of layouts."""
    for folder in (*node.folders, *(inner for outer in node.folders for inner in outer.folders)):
        try:
            kind, items, _ = match_tree(folder, rank)
        except ValueError:
            continue
        return f"nearest: {folder.path} is a valid {kind} layout with {len(items)} images: point there"
    if node.images:
        return f"nearest: {node.path}/<class>/{node.images[0].name}, one folder for each class\nlayouts:\n{LAYOUTS}"
    return f"layouts:\n{LAYOUTS}"

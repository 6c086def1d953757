"""Pairs (photograph, mask) on the disk, as training sets of defects are laid out, and a line of JSON for each.

    OUT/PRODUCT/test/DEFECT/000.png                   the photograph with the defect
    OUT/PRODUCT/ground_truth/DEFECT/000_mask.png      what changed in it (data/place/changed.py)
    OUT/pairs.jsonl                                   where it comes from: photograph, mask, seed, model, scores

The layout of MVTec AD (Bergmann et al. 2019), which `python -m data --inspect` and every tool for defects reads. Of the
candidates of a pair the strongest is kept, which changed most inside the mask: the selection of DefectFill (Song et al.
2025, arXiv 2503.13985) with a difference of colours in the place of LPIPS. A pair that changed too little of its mask
is dropped, and counted.
"""

import json
import os
from pathlib import Path

import numpy as np

from config import sampling as part
from data.output.atomic import write_atomic
from data.output.grid import save_image
from data.output.samples import file_names
from data.place.changed import Changed, changed
from inference.fill import Fill
from ops.machine import process

LINES = "pairs.jsonl"
ABOUT = ("seed", "steps", "guidance", "sampler", "model", "adapters")  # of a call, in each line


class Pairs:
    """The pairs of a call, in columns as its samples: `names` are the classes or prompts."""

    def __init__(
        self, out: Path, names: list[str], kind: str, output: part.Output, about: dict, fill: Fill, settings: part.Fill
    ):
        """kind: "class" or "prompt". Raises ValueError for a folder that holds pairs of these defects already."""
        if process.count() > 1:
            raise ValueError("--product chooses among candidates that one process draws: start it without torchrun")
        self.out, self.names, self.kind, self.count, self.fill = out, names, kind, output.count, fill
        self.settings, self.about = settings, {key: about[key] for key in ABOUT}
        plain = file_names([name.rpartition("/")[2] for name in names])
        self.defects = [settings.defect] * len(names) if settings.defect else plain
        self.best: tuple[int, np.ndarray, Changed] | None = None  # of the candidates of one pair
        self.kept, self.dropped = dict.fromkeys(self.defects, 0), 0
        for defect in self.kept:
            self.clear(defect, output.replace)

    def folders(self, defect: str) -> tuple[Path, Path]:
        """The folders of a defect's photographs and of its masks, from OUT."""
        product = Path(self.settings.product)
        return product / "test" / defect, product / "ground_truth" / defect

    def clear(self, defect: str, replace: bool) -> None:
        """Remove the pairs of a defect that are there, or raise ValueError."""
        images, masks = self.folders(defect)
        folders = [self.out / folder for folder in (images, masks)]
        there = [path for folder in folders if folder.is_dir() for path in folder.iterdir()]
        if there and not replace:
            raise ValueError(f"{folders[0]} holds pairs: name another folder by --out, or let them go by --replace")
        for path in there:
            path.unlink()
        file, inside = self.out / LINES, images.as_posix() + "/"
        if there and file.exists():
            lines = file.read_text("utf-8").splitlines(keepends=True)
            others = [line for line in lines if not json.loads(line)["image"].startswith(inside)]
            write_atomic(file, "".join(others).encode())

    def add(self, i: int, image: np.ndarray) -> None:
        """Take sample i, (H, W, 3) in its photograph, as a candidate; after the last of a pair write the strongest."""
        good, asked, _ = self.fill.read(i)
        found = changed(image, good, asked)
        if self.best is None or found.difference > self.best[2].difference:
            self.best = i, image, found
        if (i + 1) % self.settings.candidates == 0:
            self.write(*self.best)
            self.best = None

    def write(self, i: int, image: np.ndarray, found: Changed) -> None:
        """Write a pair and its line, unless it changed less than the least share of its mask."""
        if found.iou < self.settings.least or not found.mask.any():
            self.dropped += 1
            return
        name, defect = self.names[i // self.count], self.defects[i // self.count]
        stem = f"{self.kept[defect]:03d}"
        images, masks = self.folders(defect)
        save_image(self.out / images / f"{stem}.png", image)
        save_image(self.out / masks / f"{stem}_mask.png", found.mask.astype(np.uint8) * 255)
        source, asked = (os.path.abspath(path) for path in self.fill.jobs[self.fill.number(i)])
        line = {
            "image": (images / f"{stem}.png").as_posix(),
            "mask": (masks / f"{stem}_mask.png").as_posix(),
            "source": source,
            "asked": asked,
            self.kind: name,
            "number": i,
            "scores": {"iou": round(found.iou, 4), "difference": round(found.difference, 3)},
        }
        with open(self.out / LINES, "a", encoding="utf-8") as file:
            file.write(json.dumps(line | self.about, ensure_ascii=False) + "\n")
        self.kept[defect] += 1

    def close(self) -> str:
        """What was written, in words."""
        total, least = sum(self.kept.values()), self.settings.least
        few = f"changed less than {least:g} of the mask" if least else "did not change"
        lost = f"{self.dropped} dropped, which {few}"
        if not total:
            raise ValueError(f"no pair was written to {self.out}: {lost}")
        return f"{total} pairs in {self.out / self.settings.product}{f'; {lost}' * bool(self.dropped)}"

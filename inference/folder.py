"""The folder of a call's samples: each in its PNG, which says how it was made, and the grid of them."""

from functools import partial
from pathlib import Path

import numpy as np

from config import sampling as part
from config.repeat import same_images
from data.images import decode
from data.output.grid import grid, save_image
from data.output.samples import GRID, check_folder, file_names, overview
from ops.machine.process import by_first


class Folder:
    """`count` samples for each of the columns `names`, in column after column."""

    def __init__(self, out: Path, names: list[str], kind: str, output: part.Output, about: dict, only: int | None):
        """kind: "class" or "prompt". about: what every image says of itself. only: the one sample wanted, or None.

        Raises ValueError for a folder that holds samples of another call.
        """
        self.out, self.names, self.kind, self.count = out, names, kind, output.count
        self.about, self.only, self.side = about, only, 0
        self.stems = file_names(names)
        files = {f"{stem}_{row:03d}.png" for stem in self.stems for row in range(self.count)}
        by_first(partial(check_folder, out, files, partial(same_images, about["settings"]), output.replace))
        out.mkdir(parents=True, exist_ok=True)

    def add(self, i: int, image: np.ndarray) -> None:
        """Write sample number i."""
        column, row = divmod(i, self.count)
        shows = {self.kind: self.names[column], "number": i}
        save_image(self.out / f"{self.stems[column]}_{row:03d}.png", image, shows | self.about)
        self.side = max(self.side, *image.shape)

    def close(self) -> str:
        """Write the grid, of the first images where all would be too much for memory; what was written, in words."""
        if self.only is not None:
            return f"1 image in {self.out}"
        wide, high = overview(len(self.names), self.count, self.side)
        files = ([self.out / f"{stem}_{row:03d}.png" for row in range(high)] for stem in self.stems[:wide])
        save_image(self.out / GRID, grid({name: list(map(decode, of)) for name, of in zip(self.names, files)}))
        whole = (wide, high) == (len(self.names), self.count)
        shown = "" if whole else f", which shows the first {high} of the first {wide} columns,"
        return f"{len(self.names) * self.count} images and grid.png{shown} in {self.out}"

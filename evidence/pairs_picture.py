"""A picture of pairs: good photograph, asked mask, result, changed: python -m evidence.pairs_picture --pairs DIR"""

import json
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from border import read_text
from config import option, read, run_script
from data.images import decode, decode_mask
from data.output.grid import grid, save_image
from data.transforms import resize

ROWS = ["good photograph", "asked mask", "result", "changed"]


@dataclass
class Picture:
    """The picture"""

    pairs: str = option("pairs", "folder that sample.py --product wrote")
    count: int = option(6, "pairs that are shown, evenly spread", at_least=1)
    side: int = option(96, "pixels a side", at_least=16)
    out: str = option("pairs.png", ".png file")


def main(argv: list[str] | None = None) -> None:
    """Write the picture."""
    settings = read(argv, Picture, title=__doc__)[Picture]
    folder = Path(settings.pairs)
    lines = read_lines(folder)
    chosen = lines[:: max(1, len(lines) // settings.count)][: settings.count]
    columns = {
        f"{i} {line['image'].split('/')[-2]}": column(folder, line, settings.side) for i, line in enumerate(chosen)
    }
    save_image(settings.out, grid(columns, ROWS, min_side=settings.side))
    print(f"{len(columns)} pairs in {settings.out}")


def read_lines(folder: Path) -> list[dict]:
    """The line of each pair in a folder that sample.py --product wrote, in their order."""
    return [json.loads(line) for line in read_text(folder / "pairs.jsonl").splitlines()]


def column(folder: Path, line: dict, side: int) -> list[np.ndarray]:
    """The four images of a pair, (side, side, 3) each; masks white on black."""
    asked, found = decode_mask(line["asked"]), decode_mask(folder / line["mask"])
    masks = [np.repeat(((mask > 0) * 255).astype(np.uint8)[..., None], 3, 2) for mask in (asked, found)]
    images = [decode(line["source"]), masks[0], decode(folder / line["image"]), masks[1]]
    return [resize(image, side, nearest=side > len(image)) for image in images]


if __name__ == "__main__":
    run_script(main)

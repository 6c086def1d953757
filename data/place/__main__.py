"""python -m data.place --good PHOTOGRAPHS --out MASKS: masks inside the object of each good photograph.

--from-masks moves, turns and scales those of real defects; without it they are made up, spots or strokes. The masks of
photograph 7.png are 7-0.png, 7-1.png, ..., and sample.py --mask finds each by that name.
"""

import argparse
import math
import sys
from pathlib import Path

import numpy as np

from data.folders.tree import read_tree
from data.images import decode, decode_mask
from data.output.grid import save_image
from data.place.foreground import foreground
from data.place.moved import SCALE, TURN, moved_mask
from data.place.procedural import spot, stroke

MADE_UP = {"spot": spot, "stroke": stroke}


def place(options: argparse.Namespace) -> int:
    """Write the masks; their number. ValueError for a folder without images, and a photograph without room."""
    good, real = images_of(options.good), []
    if options.from_masks:
        real = [mask for path in images_of(options.from_masks) if (mask := decode_mask(path) > 0).any()]
        if not real:
            raise ValueError(f"{options.from_masks}: all masks are empty")
    for number, path in enumerate(good):
        photograph = decode(path)
        try:
            allowed = np.ones(photograph.shape[:2], bool) if options.anywhere else foreground(photograph)
            allowed &= legal_region(options.legal, path, allowed.shape)
            for k in range(options.count):
                rng = np.random.default_rng([options.seed, number, k])
                if real:
                    mask = moved(real, allowed, rng, math.radians(options.turn), options.scale)
                else:
                    mask = MADE_UP[options.shape](allowed, rng)
                save_image(Path(options.out, f"{path.stem}-{k}.png"), mask.astype(np.uint8) * 255)
        except ValueError as error:
            raise ValueError(f"{path}: {error}") from None
    return len(good) * options.count


def moved(
    real: list[np.ndarray], allowed: np.ndarray, rng: np.random.Generator, turn: float, scale: float
) -> np.ndarray:
    """A random one of the masks that there is room for, moved. ValueError where there is room for none."""
    for last, number in enumerate(rng.permutation(len(real)), 1):
        try:
            return moved_mask(real[number], allowed, rng, turn, scale)
        except ValueError:
            if last == len(real):
                raise
    raise AssertionError("there is a mask")


def images_of(folder: str) -> list[Path]:
    """The images of a folder and its folders. ValueError for none, and for two of one name."""
    paths = read_tree(folder).all_images
    if not paths:
        raise ValueError(f"{folder}: expected images, found none")
    return paths


def legal_region(legal: str, path: Path, shape: tuple[int, int]) -> np.ndarray:
    """Where defects may lie, (H, W) bool: one image for all, or that of the photograph's name in a folder."""
    if not legal:
        return np.ones(shape, bool)
    file = Path(legal)
    if file.is_dir():
        file = next((other for other in images_of(legal) if other.stem == path.stem), file / f"{path.stem}.png")
    region = decode_mask(file) > 0
    if region.shape != shape:
        raise ValueError(f"{file}: a legal region is as large as its photograph, {shape[1]}x{shape[0]}")
    return region


def main(arguments: list[str] | None = None) -> int:
    """Exit status 0, or 2 with one sentence."""
    parser = argparse.ArgumentParser(prog="python -m data.place", description=__doc__)
    parser.add_argument("--good", required=True, help="folder of good photographs")
    parser.add_argument("--out", required=True, help="folder for the masks")
    parser.add_argument("--from-masks", default="", help="folder of masks of real defects, which are moved")
    parser.add_argument("--shape", default="spot", choices=MADE_UP, help="of masks that are made up")
    parser.add_argument("--legal", default="", help="where defects may lie: a mask, or a folder with one for each")
    parser.add_argument("--anywhere", action="store_true", help="all of the photograph is the object, as of a texture")
    parser.add_argument("--count", type=int, default=1, help="masks for each photograph")
    parser.add_argument("--turn", type=float, default=math.degrees(TURN), help="of moved masks: at most, in degrees")
    parser.add_argument("--scale", type=float, default=SCALE, help="of moved masks: at most, a factor of 1 or more")
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args(arguments)
    try:
        if options.count < 1 or options.scale < 1:
            raise ValueError(f"--count and --scale must be at least 1, found {options.count} and {options.scale}")
        if options.from_masks and options.shape != "spot":
            raise ValueError("--shape has no effect on masks that are moved, --from-masks")
        print(f"{place(options)} masks in {options.out}")
    except (ValueError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())

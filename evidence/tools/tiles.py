"""Photographs of magnetic tiles (Huang et al. 2018) as few-shot data: a split by tile, crops, defects moved.

The folder holds images/<class>/exp<E>_num_<F>.jpg and masks/<class>/<same>.png. One tile was photographed under up to
six exposures E in frames F near each other, so that a split by image, or by a hash of its bytes, has the same defect of
the same tile on both sides. Here photographs whose frames lie within GAP of a neighbour's count as one tile, of
whatever class, and a tile is wholly in one part.
"""

import hashlib
import re
from pathlib import Path
from typing import NamedTuple

import numpy as np
import scipy
from PIL import Image

from data.place.moved import displaced, laid, relit

GAP = 1500  # frames; one tile's exposures span about 150, and some tiles were photographed twice
CUT, SIDE = 96, 64  # pixels: the square that is cut out, and its side after resizing
JITTER = 24  # pixels, at most, from the middle of the square to the pixel of the defect that it was cut around
SHIFT = 12  # pixels of the resized square, at most, of a moved defect


class Photo(NamedTuple):
    """One photograph: `tile` is the first frame of its group."""

    label: str
    path: Path
    mask: Path
    tile: int


def read(folder: str | Path) -> list[Photo]:
    """All photographs, by frame. ValueError for a name without a frame number."""
    frames = []
    for path in Path(folder, "images").glob("*/*.jpg"):
        frame = re.fullmatch(r"exp\d+_num_(\d+)", path.stem)
        if not frame:
            raise ValueError(f"{path}: expected a name such as exp1_num_4727.jpg")
        mask = Path(folder, "masks", path.parent.name, f"{path.stem}.png")
        frames.append((int(frame[1]), path.name, Photo(path.parent.name, path, mask, 0)))
    photos, tile, last = [], 0, -GAP - 1
    for frame, _, photo in sorted(frames):
        tile, last = tile if frame - last <= GAP else frame, frame
        photos.append(photo._replace(tile=tile))
    return photos


def split(photos: list[Photo], few: tuple[str, ...]) -> dict[str, list[Photo]]:
    """ "train", "val" and "test" -> photographs, no tile in two of them.

    Tiles with a defect of the classes `few` are test and train in turn, by the hash of their number, class by class
    from the rarest; of the others one in eight is test and one in eight val.
    """
    part, tiles = {}, {label: by_hash({p.tile for p in photos if p.label == label}) for label in few}
    for label in sorted(few, key=lambda label: len(tiles[label])):
        new = [tile for tile in tiles[label] if tile not in part]
        part |= {tile: ("test", "train")[i % 2] for i, tile in enumerate(new)}
    rest = by_hash({p.tile for p in photos} - set(part))
    part |= {tile: {0: "test", 4: "val"}.get(i % 8, "train") for i, tile in enumerate(rest)}
    return {name: [p for p in photos if part[p.tile] == name] for name in ("train", "val", "test")}


def by_hash(tiles: set[int]) -> list[int]:
    """The tiles in an order that their numbers decide and nothing else."""
    return sorted(tiles, key=lambda tile: hashlib.sha256(str(tile).encode()).digest())


def few_shot(photos: list[Photo], label: str, tiles: int, shots: int, seed: int) -> tuple[list[Photo], list[Photo]]:
    """`shots` photographs of a class, in turn from `tiles` random tiles, and all photographs of the other tiles."""
    own = [p for p in photos if p.label == label]
    order = by_hash({p.tile for p in own})
    np.random.default_rng([seed, 0]).shuffle(order)
    rounds = [[p for p in own if p.tile == tile] for tile in order[:tiles]]
    in_turn = [p for i in range(max(map(len, rounds))) for group in rounds for p in group[i : i + 1]]
    return in_turn[:shots], [p for p in own if p.tile in order[tiles:]]


def crops(photo: Photo, count: int) -> list[tuple[np.ndarray, np.ndarray]]:
    """`count` squares around pixels of the defect, anywhere where there is none: (SIDE, SIDE) uint8 and its mask.

    Where they lie depends on the name of the photograph and nothing else.
    """
    image = np.array(Image.open(photo.path).convert("L"))  # (H, W)
    mask = np.array(Image.open(photo.mask).convert("L")) > 127
    rng = np.random.default_rng(int.from_bytes(hashlib.sha256(photo.path.name.encode()).digest()[:8], "big"))
    defect, made = np.argwhere(mask), []
    for _ in range(count):
        middle = rng.integers(image.shape)
        if len(defect):
            middle = defect[rng.integers(len(defect))] + rng.integers(-JITTER, JITTER + 1, 2)
        top, left = (middle - CUT // 2).clip(0, np.array(image.shape) - CUT)
        square = np.s_[top : top + CUT, left : left + CUT]
        made.append(
            tuple(
                np.array(Image.fromarray(plane[square]).resize((SIDE, SIDE), how))
                for plane, how in (
                    (image, Image.Resampling.LANCZOS),
                    (mask.astype(np.uint8) * 255, Image.Resampling.BOX),
                )
            )
        )
    return made


class Moved(NamedTuple):
    """Squares with moved defects, and their parts. alpha: the opacity of the defect, from 0 to 1."""

    pixels: np.ndarray  # (N, SIDE, SIDE) uint8
    alpha: np.ndarray  # (N, SIDE, SIDE) float
    ground: np.ndarray  # (N, SIDE, SIDE) uint8, without a defect


def moved(photos: list[Photo], free: list[Photo], count: int, rng: np.random.Generator) -> Moved:
    """`count` defects of photographs, each cut out along its mask, displaced, and laid on a square of the defect-free
    photographs `free` in that square's brightness and contrast.

        alpha ((image - mean) / std * std(free) + mean(free)) + (1 - alpha) free,   alpha: the mask, widened, softened
    """
    sources = [pair for photo in photos for pair in crops(photo, 8) if pair[1].any()]
    grounds = [square for photo in free for square, _ in crops(photo, 2)]
    made = []
    for _ in range(count):
        image, mask = displaced(sources[rng.integers(len(sources))], rng, SHIFT)
        ground = grounds[rng.integers(len(grounds))]
        around = image[mask <= 64] if (mask <= 64).any() else image
        alpha = scipy.ndimage.gaussian_filter(scipy.ndimage.binary_dilation(mask > 64, iterations=2).astype(float), 1.0)
        made.append((laid(relit(image, around, ground), alpha, ground), alpha, ground))
    return Moved(*(np.stack(planes) for planes in zip(*made)))

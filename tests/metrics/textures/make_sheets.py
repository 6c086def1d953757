"""Makes the small pictures of test_likeness.py: python tests/metrics/textures/make_sheets.py, from the root.

A sheet for each of three textures, a row for each set: training photographs, held-out ones, pictures of the same with
their defect visible in a texture that is not learned yet, and fog.
"""

from pathlib import Path

import numpy as np
from PIL import Image
from scipy.ndimage import gaussian_filter

from data.generated import makers

SIDE = 32
SHEETS = {"wood": "hole", "fabric": "hole", "concrete": "crack"}
ROWS = {"train": 6, "held_out": 4, "visible": 4, "fog": 4}


def photographs(texture: str, split: str, count: int) -> np.ndarray:
    """The first `count` photographs of a texture with its defect, (count, SIDE, SIDE, 3) uint8."""
    return np.stack([makers.image(texture, SHEETS[texture], split, i, SIDE)[0] for i in range(count)])


def sheet(texture: str) -> np.ndarray:
    """All rows of a texture in one picture, (4 SIDE, 6 SIDE, 3) uint8."""
    train, held_out = photographs(texture, "few", 6), photographs(texture, "test", 4)
    # a defect as seen, in a texture that is half as strong and smooth
    seen = photographs(texture, "val", 4).astype(float)
    smooth = gaussian_filter(seen, (0, 0.8, 0.8, 0))
    visible = smooth.mean((1, 2), keepdims=True) + 0.8 * (smooth - smooth.mean((1, 2), keepdims=True))
    light = np.random.default_rng(0).normal(0, 30, (4, SIDE, SIDE, 1))
    fog = train[:4].mean((1, 2), keepdims=True) + gaussian_filter(light, (0, 8, 8, 0))
    rows = [train, held_out, visible, fog]
    whole = np.zeros((len(rows), 6, SIDE, SIDE, 3))
    for row, pictures in zip(whole, rows):
        row[: len(pictures)] = pictures
    return whole.transpose(0, 2, 1, 3, 4).reshape(4 * SIDE, 6 * SIDE, 3).clip(0, 255).round().astype(np.uint8)


if __name__ == "__main__":
    for name in SHEETS:
        Image.fromarray(sheet(name)).save(Path(__file__).parent / f"{name}.png", optimize=True)

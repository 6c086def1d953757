"""Peak memory of train.py against the number of images and of classes: python -m bench.memory [IMAGES:CLASSES]...

Every row is a process of its own: photographs of noise (64 pixels, PNG) are written into a temporary folder, and
train.py takes a few steps on them with the shipped model, mirrored left to right, its latents in a new cache. The long
form is `python -m bench.memory 1000:10 100000:10 500000:10000`, which needs 2, 5 and 25 GB of disk.
"""

import json
import sys
import tempfile
from pathlib import Path

import numpy as np
from PIL import Image
from tqdm import tqdm

from bench.timing.child import run

ROWS = ("1000:10", "10000:10", "10000:10000")
FLAGS = "--flips h --rotations 0 --steps 20 --batch 8 --count 1 --sample-steps 2 --measure 0 --sample-every 20".split()


def write_photographs(folder: Path, images: int, classes: int) -> None:
    """Images of noise, no two alike, as many in each class."""
    random = np.random.default_rng(0)
    for i in tqdm(range(images), "photographs", disable=images < 2000):
        file = folder / f"class_{i % classes:05d}" / f"{i:06d}.png"
        file.parent.mkdir(exist_ok=True)
        grey = random.integers(0, 256, (8, 8, 3), dtype=np.uint8)
        Image.fromarray(np.kron(grey, np.ones((8, 8, 1), np.uint8))).save(file, compress_level=1)


def measured(images: int, classes: int) -> dict:
    """{"images", "classes", "seconds", "peak_mib"} of one run."""
    with tempfile.TemporaryDirectory() as folder:
        data = Path(folder) / "photographs"
        data.mkdir()
        write_photographs(data, images, classes)
        argv = ["--data", str(data), "--out", f"{folder}/run", "--cache", f"{folder}/cache", *FLAGS]
        took = run(["train.py", *argv])
    return {
        "images": images,
        "classes": classes,
        "seconds": round(took["wall"]),
        "peak_mib": round(took["peak"] * 1024),
    }


def main(rows: list[str]) -> None:
    """A line of JSON for each row, with its peak over that of the first."""
    first = None
    for row in rows or ROWS:
        found = measured(*map(int, row.split(":")))
        first = first or found["peak_mib"]
        print(json.dumps(found | {"over_the_first": round(found["peak_mib"] / first, 3)}), flush=True)


if __name__ == "__main__":
    main(sys.argv[1:])

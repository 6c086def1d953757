"""The rows of docs/rows.md in their short form: python -m tests.long.rows [WORD]... --out sums.json

Each command runs with few steps, small models and generated images, in the order of the page, in a folder that has what
it names; those whose name has a WORD. Left out is what needs a download (a published network that measures) or runs
several trainings (compare.py, a search). Prints every row, and the error of what failed; exits with 1 if one did.
"""

import contextlib
import io
import json
import os
import runpy
import shlex
import shutil
import sys
import tempfile
import time
from importlib import import_module
from pathlib import Path

import numpy as np

from config import given
from config.read import fields
from data.generated import makers
from data.output.grid import save_image
from recipes import RECIPES
from recipes.settings import all_parts, row_of, rows

ROOT = Path(__file__).parents[2]
SMALL = {
    "SiT-S-2-256": "tiny-dit",
    "DiT-XL-2-256x256": "tiny-dit",
    "stable-diffusion-1.5": "tiny-sd",
    "stable-diffusion-xl": "tiny-sd",
}
SHORT = {  # setting of train.py -> its value, where the recipe reads it
    "vae": "tiny-vae",
    "size": 64,
    "crop": 0,
    "steps": 2,
    "epochs": 0,
    "batch": 2,
    "accumulate": 1,
    "sampler": "ddim",
    "sample_steps": 2,
    "sample_every": 2,
    "count": 1,
    "measure": 1,
    "class_init": "name",
    "class_images": 1,
    "features": "",
    "cache": "",
    "flips": "none",
    "rotations": "0",
    "device": "cpu",
}
DOWNLOADS = (
    "clip-vit",
    "dino-",
    "lpips-",
    "loha.safetensors",
    "detect_and_read",
    "metrics.objects",
)  # in a command: not here
SEVERAL = ("compare.py", "experiments.search")  # trainings


def main(argv: list[str]) -> int:
    """Run the rows and write the summary."""
    out = Path(argv.pop(argv.index("--out") + 1)).resolve() if "--out" in argv else None
    words = [word for word in argv if word != "--out"]
    chosen = [row for row in all_rows() if not words or any(word.lower() in row[0].lower() for word in words)]
    failed, left, ran = [], [], 0
    with tempfile.TemporaryDirectory() as folder, contextlib.chdir(folder):
        photographs(Path())
        for what, command, _ in chosen:
            if any(word in command for word in DOWNLOADS + SEVERAL):
                left.append(what)
                continue
            began, printed, fault = time.monotonic(), io.StringIO(), ""
            try:
                with contextlib.redirect_stdout(printed), contextlib.redirect_stderr(printed):
                    run(command)
                ran += 1
            except (Exception, SystemExit) as error:
                fault = f"{type(error).__name__}: {error}"
                failed.append(what)
            print(f"{time.monotonic() - began:6.1f} s  {what}{f'  FAILED, {fault}' if fault else ''}", flush=True)
    print(f"{ran} rows ran, {len(failed)} failed, {len(left)} need a download or several trainings")
    if out:
        out.write_text(json.dumps({"ran": ran, "failed": failed, "left out": left}, indent=1) + "\n")
    return bool(failed)


def all_rows() -> list[list[str]]:
    """(what, command, test) of each row of the page that is whole."""
    page = runpy.run_path(str(ROOT / "docs" / "rows.py"), run_name="rows")
    return [row for name, section in page["sections"]().items() if name != "open" for row in section["rows"]]


def run(command: str) -> None:
    """One command in its short form, in this process. Raises what it raises, and ValueError for another exit status."""
    script, *words = shlex.split(command)
    script, words = (words[0], words[1:]) if script == "-m" else (script.removesuffix(".py"), words)
    words = [str(ROOT / word) if word.startswith(("configs/", "examples/")) else word for word in words]
    if script == "train":
        words += short(words)
    elif script == "sample":
        words = [SMALL.get(word, word) for word in words] + ["--steps", "2", "--count", "2", "--device", "cpu"]
        words += [] if "--out" in words else ["--out", "sampled", "--replace"]
    elif script == "evaluate":
        words += ["--gain", "1"] if "--gain" in words else []
    if status := import_module(script).main(words):
        raise ValueError(f"exit status {status}")


def short(words: list[str]) -> list[str]:
    """The flags that make a training short and small."""
    values = given(words, all_parts())
    if values.get("resume"):
        return []
    recipe = values.get("recipe", "class_label")
    model = values.get("model", RECIPES[recipe].model)
    model = SMALL.get(model, model)
    read = fields(rows()[row_of(recipe, model)])
    flags = [f"--{name}={value}" for name, value in SHORT.items() if name in read]
    flags += [] if "data" in values else ["--data=photos/"]
    return [f"--model={model}", *flags, *(["--token-init=metal"] if values.get("token") else [])]


def photographs(folder: Path) -> None:
    """What the commands name: photos/, held_out/, drawn/, a/, b/, subject/, species/, mask1.png and mask2.png."""
    for state in ("good", "crack"):
        for split, where in (("few", "photos"), ("test", "held_out"), ("val", "drawn"), ("val", "a"), ("oracle", "b")):
            for i in range(4):
                pixels, mask, _ = makers.image("hazelnut", state, split, i, 64)
                named = (
                    f"{state}/{i}.png" if where in ("photos", "held_out") else f"{state}_{i:03d}.png"
                )  # as sample.py
                save_image(folder / where / named, pixels)
                if state == "crack" and where == "photos":
                    shown = np.repeat(255 * mask[..., None].astype(np.uint8), 3, 2)
                    save_image(folder / where / state / f"{i}_mask.png", shown)
                    save_image(folder / f"mask{i + 1}.png", shown)
    for i in range(3):
        save_image(folder / "subject" / f"{i}.png", makers.image("hazelnut", "good", "few", i, 64)[0])
    for family, name in (("nut", "hazel"), ("nut", "cob"), ("seed", "flax")):
        (folder / "species" / family / name).mkdir(parents=True)
        for i in range(2):
            shutil.copy(folder / "subject" / f"{i}.png", folder / "species" / family / name / f"{i}.png")


if __name__ == "__main__":
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    sys.exit(main(sys.argv[1:]))

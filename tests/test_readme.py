"""The README says what the code does: its commands are CI's and run, its counts are counted, its folders exist."""

import re
import shlex
from importlib import import_module
from pathlib import Path

import numpy as np
import pytest
import torch

import adapters
from config import given
from config.read import fields
from data.generated import makers
from data.output.grid import save_image
from dit import DiT
from experiments.plan import read_plan
from recipes.settings import all_parts, check, row_of, rows
from unet import UNet
from unet.sizes import UNETS

ROOT = Path(__file__).parent.parent
README = (ROOT / "README.md").read_text()
SECTIONS = dict(re.findall(r"^## (.*?)\n(.*?)(?=^## |\Z)", README, re.M | re.S))


def test_it_is_short():
    assert 1_000 < len(README.split()) <= 1_600


def test_ci_runs_the_two_commands():
    main, tests = (line for line in README.splitlines() if line.startswith("pip install -c"))
    ci = (ROOT / ".ci" / "run").read_text()
    assert tests in ci.splitlines() and any(line.startswith(main) for line in ci.splitlines())


LINES = [line.strip("|").split("|") for line in README.splitlines() if re.match(r"\| \[`[a-z]+[:`]", line)]
ROWS = [[re.sub(r"\[`(.*?)`\].*", r"\1", cell.strip()) for cell in cells] for cells in LINES]  # name, when, DiT, UNet
DIT = [(name, count) for name, _, count, _ in ROWS if count and "a row" not in count]
UNET = [(name, count) for name, _, _, count in ROWS if count and "a row" not in count]


def test_every_method_has_its_row():
    assert {name.split(":")[0] for name, *_ in ROWS} == set(adapters.METHODS) and len(DIT) == 13 and len(UNET) == 13


@pytest.mark.parametrize("spec, count", UNET)
def test_the_counts_are_those_of_stable_diffusions_unet(spec, count):
    with torch.device("meta"):
        model = UNet(UNETS["SD-1"])
    assert adapters.counts(adapters.attach(model, spec))[0] == int(count.replace(",", ""))


@pytest.mark.parametrize("spec, count", DIT)
def test_the_counts_are_those_of_the_full_size_model(spec, count):
    with torch.device("meta"):
        model = DiT.from_name("DiT-XL/2")
    adapters.attach(model, spec)
    rows = model.y_embedder.embedding_table.weight.numel() if "table" in count else 0
    assert adapters.counts(model)[0] - rows == int(count.split(" ")[0].replace(",", ""))


def test_the_folders_of_the_map_exist_and_are_all_there_are():
    named = set(re.findall(r"^([a-z]+)/ ", SECTIONS["Map"], re.M))
    there = {
        path.name
        for path in ROOT.iterdir()
        if path.is_dir() and not path.name.startswith(".") and any(path.rglob("*.*"))
    }
    made = {"runs", "drawn", "build", "__pycache__"} | {name for name in there if name.endswith(".egg-info")}
    assert named == there - made


def core_files():
    """The files that the map calls the core: `folder/`: `file`, `file`, or a file with its folder."""
    for line in re.findall(r"^- (.*)", SECTIONS["Map"], re.M):
        folder, *names = re.findall(r"`([\w./]+)`", line)
        yield from (
            [ROOT / folder / name for name in names]
            if folder.endswith("/")
            else (ROOT / name for name in (folder, *names))
        )


def test_the_core_is_at_most_3500_lines():
    files = list(core_files())
    told = int(re.search(r"these (\d+) files", SECTIONS["Map"])[1])
    assert len(files) == len(set(files)) == told and all(path.suffix == ".py" for path in files)
    lines = sum(len(path.read_text().splitlines()) for path in files)
    assert lines <= 3_500, f"the core has {lines} lines"


# ---- the ways in, in their short form: the README's own lines with few steps, small models and generated images

SMALL = {
    "SiT-S-2-256": "tiny-dit",
    "DiT-XL-2-256x256": "tiny-dit",
    "sd-vae-ft-mse": "tiny-vae",
    "stable-diffusion-1.5": "tiny-sd",
    "stable-diffusion-xl": "tiny-sd",
}
SHORT = {  # setting of train.py -> its value in the short form, where the recipe reads it
    "vae": "tiny-vae",
    "steps": 2,
    "batch": 2,
    "accumulate": 1,
    "sampler": "ddim",
    "sample_steps": 2,
    "sample_every": 2,
    "count": 1,
    "measure": 1,
    "class_init": "name",
    "class_images": 1,
    "cache": "",
    "flips": "none",
    "rotations": "0",
    "device": "cpu",
}


def commands(section):
    """The commands of a section's bash blocks, as lists of words."""
    for block in re.findall(r"```bash\n(.*?)```", SECTIONS[section], re.S):
        for line in block.splitlines():
            for command in line.split(" && "):
                yield shlex.split(command, comments=True)


def run(command, folder):
    """One command in its short form, in this process; downloads are left out."""
    assert command[0] == "python"
    script, words = (command[2], command[3:]) if command[1] == "-m" else (command[1].removesuffix(".py"), command[2:])
    words = [str(ROOT / word) if word.startswith("configs/") else word for word in words]
    if script == "weights.download":
        return
    if script == "train":
        values = given(words, all_parts())
        model = SMALL.get(values.get("model", "tiny-dit"), "tiny-dit")
        read = fields(rows()[row_of(values.get("recipe", "class_label"), model)])
        words += ["--model", model, *(f"--{name}={value}" for name, value in SHORT.items() if name in read)]
        words += ["--token-init", "metal"] if values.get("token") else []
    elif script == "sample":
        words += ["--steps", "2", "--count", "2", "--device", "cpu"]
    module = import_module({"data": "data.__main__"}.get(script, script))
    assert not module.main(words), command  # None, or exit status 0


@pytest.fixture
def photographs(tmp_path, monkeypatch):
    """A folder with what the README's commands name: photos/, held_out/, subject/, mask1.png, mask2.png."""
    monkeypatch.chdir(tmp_path)
    for state in ("good", "crack"):
        for split, folder in (("few", "photos"), ("test", "held_out")):
            (tmp_path / folder / state).mkdir(parents=True)
            for i in range(2):
                pixels, mask, _ = makers.image("hazelnut", state, split, i, 64)
                save_image(tmp_path / folder / state / f"{i}.png", pixels)
                if state == "crack" and folder == "photos":
                    shown = np.repeat(255 * mask[..., None].astype(np.uint8), 3, 2)
                    save_image(tmp_path / folder / state / f"{i}_mask.png", shown)
                    save_image(tmp_path / f"mask{i + 1}.png", shown)
    (tmp_path / "subject").mkdir()
    for i in range(3):
        save_image(tmp_path / "subject" / f"{i}.png", makers.image("hazelnut", "good", "few", i, 64)[0])
    return tmp_path


def test_the_way_in_with_photographs_of_defects(photographs):
    for command in commands("You have photographs of defects"):
        run(command, photographs)
    assert (photographs / "runs/small/metrics.json").exists() and (photographs / "runs/photos/drawn/grid.png").exists()
    assert (photographs / "runs/where/control.safetensors").exists()
    assert len(list((photographs / "runs/where/drawn").glob("crack_*.png"))) == 2


def test_the_way_in_with_a_stable_diffusion_and_a_subject(photographs):
    for command in commands("You have a Stable Diffusion and a subject"):
        run(command, photographs)
    assert (photographs / "dog.safetensors").exists() and (photographs / "runs/lora/drawn/grid.png").exists()
    assert (photographs / "runs/dreambooth/model/unet").is_dir()
    assert (photographs / "runs/word/adapter.safetensors").exists()


def test_the_way_in_for_the_mathematics():
    (block,) = re.findall(r"```python\n(.*?)```", SECTIONS["You want the mathematics"], re.S)
    names = {}
    exec(block, names)
    assert names["x"].shape == (2, 4, 8, 8) and names["x"].isfinite().all()
    assert not any("LoRA" in type(layer).__name__ for layer in names["model"].modules())  # merged


CONFIGS = [
    path for path in sorted((ROOT / "configs").glob("*.toml")) if not path.name.startswith(("search_", "compare_"))
]


@pytest.mark.parametrize("path", CONFIGS, ids=lambda path: path.name)
def test_every_config_is_one(path):
    values = given([str(path)], all_parts())
    model = values.get("model", "tiny-dit")
    check(values | {"model": SMALL.get(model, model)})


def test_every_comparison_is_one():
    plans = [read_plan(path) for path in sorted((ROOT / "configs").glob("compare_*.toml"))]
    assert plans and all(len(plan.methods) > 1 for plan in plans)

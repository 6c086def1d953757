"""The README says what the code does: its commands are CI's, its counts are counted, its folders exist."""

import re
from pathlib import Path

import pytest
import torch

import adapters
import compare
import evaluate
import evidence.__main__ as evidence
import sample
import train
from dit import DiT
from experiments.plan import read_plan
from recipes import recipes
from unet import UNet
from unet.model import SIZES as UNETS

ROOT = Path(__file__).parent.parent
README = (ROOT / "README.md").read_text()


def test_ci_runs_the_two_commands():
    main, tests = (line for line in README.splitlines() if line.startswith("pip install -c"))
    ci = (ROOT / ".ci" / "run").read_text()
    assert tests in ci.splitlines() and any(line.startswith(main) for line in ci.splitlines())


LINES = [line.strip("|").split("|") for line in README.splitlines() if re.match(r"\| `[a-z]+[:`]", line)]
ROWS = [[cell.strip(" `") for cell in cells] for cells in LINES if len(cells) == 5]  # name, what, DiT, UNet, source
DIT = [(name, count) for name, _, count, _, _ in ROWS if count and "a row" not in count]
UNET = [(name, count) for name, _, _, count, _ in ROWS if count and "a row" not in count]


def test_every_method_has_its_row():
    assert {name.split(":")[0] for name, *_ in ROWS} == set(adapters.METHODS) and len(DIT) == 11 and len(UNET) == 11


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
    named = set(re.findall(r"^([a-z]+)/ ", README, re.M))
    there = {
        path.name
        for path in ROOT.iterdir()
        if path.is_dir() and not path.name.startswith(".") and any(path.rglob("*.*"))
    }
    assert named == there - {"runs", "drawn", "build"} - {name for name in there if name.endswith(".egg-info")}


def test_the_flags_of_the_commands_exist():
    for script, config in (
        ("train.py", train.Config),
        ("sample.py", sample.Config),
        ("evaluate.py", evaluate.Config),
        ("compare.py", compare.Config),
        ("-m evidence", evidence.Config),
    ):
        for line in re.findall(rf"python {script} (.*)", README):
            for flag in re.findall(r"--([a-z-]+)", line.split("`")[0]):
                assert flag.replace("-", "_") in config.__dataclass_fields__, f"{script} has no --{flag}"


CONFIGS = [
    path for path in sorted((ROOT / "configs").glob("*.toml")) if not path.name.startswith(("search_", "compare_"))
]


@pytest.mark.parametrize("path", CONFIGS, ids=lambda path: path.name)
def test_every_config_is_one(path):
    from launch import configure

    cfg = configure(train.Config, [str(path)])
    assert cfg.recipe in recipes()
    for spec in cfg.adapter:
        adapters.parse(adapters.split(spec)[1])


def test_every_comparison_is_one():
    plans = [read_plan(path) for path in sorted((ROOT / "configs").glob("compare_*.toml"))]
    assert plans and all(len(plan.methods) > 1 for plan in plans)

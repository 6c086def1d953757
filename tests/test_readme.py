"""The README says what the code does: its commands are CI's, its counts are counted, its folders exist."""
import re
from pathlib import Path

import pytest
import torch

import adapters
import sample
import train
from dit import DiT

ROOT = Path(__file__).parent.parent
README = (ROOT / "README.md").read_text()


def test_ci_runs_the_two_commands():
    main, tests = (line for line in README.splitlines() if line.startswith("pip install -c"))
    ci = (ROOT / ".ci" / "run").read_text()
    assert tests in ci.splitlines() and any(line.startswith(main) for line in ci.splitlines())


ROWS = re.findall(r"^\| `([a-z]+)(:[^`]*)?` \|[^|]*\| ([\d,]+)( \+ table)? \|", README, re.M)


def test_every_method_has_its_row():
    assert {name for name, *_ in ROWS} | {"classes"} == set(adapters.METHODS)


@pytest.mark.parametrize("name, options, count, table", ROWS)
def test_the_counts_are_those_of_the_full_size_model(name, options, count, table):
    with torch.device("meta"):
        model = DiT.from_name("DiT-XL/2")
    adapters.attach(model, name + options)
    rows = model.y_embedder.embedding_table.weight.numel() if table else 0
    assert adapters.counts(model)[0] - rows == int(count.replace(",", ""))


def test_the_folders_of_the_map_exist_and_are_all_there_are():
    named = set(re.findall(r"^([a-z]+)/ ", README, re.M))
    there = {path.name for path in ROOT.iterdir()
             if path.is_dir() and not path.name.startswith(".") and any(path.rglob("*.*"))}
    assert named == there - {"runs", "drawn", "build"} - {name for name in there if name.endswith(".egg-info")}


def test_the_flags_of_the_commands_exist():
    for script, config in (("train.py", train.Config), ("sample.py", sample.Config)):
        for line in re.findall(rf"python {script} (.*)", README):
            for flag in re.findall(r"--([a-z-]+)", line.split("`")[0]):
                assert flag.replace("-", "_") in config.__dataclass_fields__, f"{script} has no --{flag}"


@pytest.mark.parametrize("path", sorted((ROOT / "configs").glob("*.toml")), ids=lambda path: path.name)
def test_every_config_is_one(path):
    from launch import configure
    cfg = configure(train.Config, [str(path)])
    assert cfg.recipe in ("class_label", "autoencoder", "classifier")
    for spec in cfg.adapter:
        adapters.parse(spec)

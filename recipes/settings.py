"""The settings of a training run: which of them a recipe reads, from a command line or from a run that is continued."""

import contextlib
import os
import sys
from collections.abc import Iterator
from dataclasses import fields
from pathlib import Path

import adapters
import weights
from config import Config, check_unread, given, read_toml, usage
from config.training import Base, Images, Origin, Run
from data.split import SOURCE, parts, share
from ops.machine.process import restarted
from recipes import DIT, NEW_DIT, NEW_SD, RECIPES, SD
from recipes.job import OF_A_CALL

IDLE = ("compile",)  # changes at most the last bits, so that a run that is continued may switch it
PATHS = ("model", "vae", "init", "data", "val", "cache", "hierarchy")  # settings that may be paths


def configure(argv: list[str] | None, title: str) -> Config:
    """The settings of train.py's command line. With --resume they are those of the run, and flags may only repeat them;
    so it is too where torchrun started the processes again.

    title: what --help begins with.
    """
    argv = list(sys.argv[1:] if argv is None else argv)
    if "-h" in argv or "--help" in argv:
        print(help_page([word for word in argv if word not in ("-h", "--help")], title))
        sys.exit(0)
    values = with_parts(given(argv, all_parts()))
    out = values.get("out", "")
    if restarted() and not out:
        raise ValueError("torchrun started the processes again, and only a run in --out can go on")
    if restarted() and (Path(out) / "config.toml").is_file():
        values["resume"] = True
    if not values.get("resume", False):
        return check(values)
    stored = Path(out) / "config.toml"
    if not out or not stored.is_file():
        raise ValueError(f"--resume needs --out with the folder of a run to continue, found {out!r}")
    stored = Path(os.path.abspath(stored))
    with in_folder(started_in(stored.parent)) as moved:
        config = read_run(stored)
        check_unread(values, rows(), row_of(config[Run].recipe, config[Base].model))
    for key, value in values.items():
        if key not in (*OF_A_CALL, *IDLE) and value != config.values[key]:
            raise ValueError(
                f"{stored}: the run has {key} = {config.values[key]!r}, and resuming cannot make it {value!r}"
            )
    call = {key: value for key, value in values.items() if key in (*OF_A_CALL, *IDLE)}
    return config.replace(**call | {"out": str(stored.parent) if moved else out})


def with_parts(values: dict) -> dict:
    """The values with `data` and `val` as the two parts of one source, where `val` is a share of it."""
    if not share(values.get("val", "")):
        return values
    train, val = parts(values.get("data", Images.data), values["val"])
    return values | {"data": train, "val": val}


def check(values: dict) -> Config:
    """The parts that the values' recipe reads. ValueError for a value that it does not read or that is out of range."""
    recipe, model = recipe_and_model(values)
    row = row_of(recipe, model)
    check_unread(values, rows(), row)
    return Config(rows()[row], values | {"model": model})


def read_run(stored: Path) -> Config:
    """The settings that a run was started with, without those of an older run that have no effect."""
    values = read_toml(stored, all_parts(), stored=True)
    if missing := [name for name in ("recipe", "model") if name not in values]:
        raise ValueError(f"{stored}: not the settings of a run, it names no {' and no '.join(missing)}")
    parts = rows()[row_of(values["recipe"], values["model"])]
    idle = {
        field.name
        for part in parts
        for field in fields(part)
        if field.metadata["needs"] and not values.get(field.metadata["needs"])
    }
    return Config(parts, {name: value for name, value in values.items() if name not in idle})


def settings_from_here(run: Path) -> dict:
    """All stored settings of a run by name, its relative paths as they are from the current folder.

    ValueError for a folder without config.toml.
    """
    if not (run / "config.toml").is_file():
        inside = f"; the run that it is of is {run.parent}" if (run.parent / "config.toml").is_file() else ""
        raise ValueError(f"{run}: not a run folder, it has no config.toml{inside}")
    values, folder = read_toml(run / "config.toml", all_parts(), stored=True), started_in(run)

    def from_here(text: str) -> str:
        part = SOURCE.fullmatch(text)
        path, rest = Path(folder) / (part["source"] if part else text), text[len(part["source"]) :] if part else ""
        return f"{path}{rest}" if folder not in ("", os.getcwd()) and text and path.exists() else text

    def moved(value: str | list[str]) -> str | list[str]:
        return [from_here(text) for text in value] if isinstance(value, list) else from_here(value)

    return {name: moved(value) if name in PATHS else value for name, value in values.items()}


def started_in(run: Path) -> str:
    """The folder that the run's relative paths begin in; "" for one of an older version, or that is gone."""
    folder = read_toml(run / "config.toml", [Origin], stored=True).get("started_in", "")
    return folder if os.path.isdir(folder) else ""


@contextlib.contextmanager
def in_folder(folder: str) -> Iterator[bool]:
    """The block runs in the folder, "" for the current one; whether that is another folder."""
    moved = folder not in ("", os.getcwd())
    with contextlib.chdir(folder) if moved else contextlib.nullcontext():
        yield moved


def help_page(argv: list[str], title: str) -> str:
    """The settings of the recipe that the other flags name, grouped by part."""
    recipe = known_recipe(given(argv, all_parts()).get("recipe", Run.recipe))
    parts = list(dict.fromkeys(part for kind in RECIPES[recipe].parts.values() for part in kind))
    recipes = f"Recipes: {', '.join(RECIPES)}; --recipe NAME --help shows the settings of each."
    methods = f"Methods of --adapter: {', '.join(adapters.METHODS)}."
    return usage(f"{title}\n{recipes}\n{methods}\n\nSettings of {recipe}:", parts, model=RECIPES[recipe].model)


def row_of(recipe: str, model: str) -> str:
    """The row of the table for a recipe and a model, "text with a Stable Diffusion".

    Raises ValueError for an unknown recipe, and for a model of a kind that the recipe does not train.
    """
    kinds = list(RECIPES[known_recipe(recipe)].parts)
    if len(kinds) == 1:
        return _row(recipe, kinds[0])
    sd = "SD" in model if model.startswith("new:") else weights.is_sd(model)
    kind = (NEW_SD if sd else NEW_DIT) if model.startswith("new:") else (SD if sd else DIT)
    if kind not in kinds:
        able = [name for name, other in RECIPES.items() if kind in other.parts]
        raise ValueError(f"{recipe} trains {' or '.join(kinds)}, and {model} is {kind}: it is for {', '.join(able)}")
    return _row(recipe, kind)


def recipe_and_model(values: dict) -> tuple[str, str]:
    """The recipe of the values, and their model or the recipe's own. ValueError for no text or an unknown recipe."""
    for name in ("recipe", "model"):
        if not isinstance(values.get(name, ""), str):
            raise ValueError(f"{name} must be a text, found {values[name]!r}")
    recipe = known_recipe(values.get("recipe", Run.recipe))
    return recipe, values.get("model", RECIPES[recipe].model)


def known_recipe(recipe: str) -> str:
    """The recipe's name; ValueError, with the names there are, for an unknown one."""
    if recipe not in RECIPES:
        raise ValueError(f"unknown recipe {recipe!r}; there are {', '.join(RECIPES)}")
    return recipe


def rows() -> dict[str, tuple[type, ...]]:
    """Every row of the table: its name -> the parts that it reads."""
    return {_row(name, kind): parts for name, recipe in RECIPES.items() for kind, parts in recipe.parts.items()}


def all_parts() -> list[type]:
    """All parts that any recipe reads, each once."""
    return list(dict.fromkeys(part for parts in rows().values() for part in parts))


def _row(recipe: str, kind: str) -> str:
    return f"{recipe} with {kind}"

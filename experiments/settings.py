"""Settings of train.py and sample.py as dicts: which a recipe reads, whether they are right, and as flags."""

from dataclasses import fields
from typing import TypeVar

from config import Config
from config.read import read_flags
from config.training import Base, Images
from inference import settings as call_settings
from recipes.settings import all_parts, check, recipe_and_model, row_of, rows, with_parts

Value = TypeVar("Value", bool, int, float, str, list[str])  # of a setting


def read_by_recipe(settings: dict, more: dict) -> dict:
    """Those of `more` that the recipe and the model of the settings read."""
    row = row_of(*recipe_and_model(settings))
    names = {field.name for part in rows()[row] for field in fields(part)}
    return {name: value for name, value in more.items() if name in names}


def train_fields() -> set[str]:
    """The names of the settings of train.py."""
    return {field.name for part in all_parts() for field in fields(part)}


def check_train(settings: dict) -> Config:
    """The settings of train.py; ValueError for one that its recipe does not read, or that has another type or range."""
    return check(with_parts(read_flags(flags(settings), all_parts())))


def check_sample(settings: dict) -> None:
    """ValueError for a setting that sample.py does not know, or that has another type or range."""
    Config(call_settings.all_parts(), read_flags(flags(settings), call_settings.all_parts()))


def training_images(settings: dict) -> str:
    """The source of the images that train.py trains on with these settings."""
    return check_train(settings)[Images].data


def base_model(settings: dict) -> str:
    """The model that train.py trains with these settings."""
    return check_train(settings)[Base].model


def flags(settings: dict) -> list[str]:
    """{"adapter": ["norm"], "lr": 0.1} -> ["--adapter=norm", "--lr=0.1"]."""
    lists = {name: value if isinstance(value, list) else [value] for name, value in settings.items()}
    return [f"--{name}={value}" for name, values in lists.items() for value in values]


def fill(value: Value, names: dict[str, object]) -> Value:
    """The value of a setting with every {name} replaced by the text of what it names."""
    if isinstance(value, list):
        return [fill(item, names) for item in value]
    for name, text in names.items():
        value = value.replace(f"{{{name}}}", str(text)) if isinstance(value, str) else value
    return value

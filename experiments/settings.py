"""Settings of train.py and sample.py as dicts: which there are, whether they are right, and as flags or TOML."""

from dataclasses import fields, make_dataclass
from typing import TypeVar

import launch
import sample
import train

Value = TypeVar("Value", bool, int, float, str, list[str])  # of a setting

READ_BY = {  # setting: the recipes that read it, where not all do; of the settings that are added to a file's own
    "measure": ("class_label", "consistency"),
    "class_images": ("dreambooth",),
    "sample_steps": ("class_label", "text", "dreambooth", "textual_inversion", "control"),
}


def read_by_recipe(settings: dict, more: dict) -> dict:
    """Those of `more` that the recipe of the settings reads."""
    recipe = settings.get("recipe", "class_label")
    return {name: value for name, value in more.items() if recipe in READ_BY.get(name, (recipe,))}


def train_fields() -> set[str]:
    """The names of the settings that train.py reads."""
    return {field.name for field in fields(train.Config)}


def check_train(settings: dict) -> None:
    """ValueError for a setting that train.py does not know or whose value has another type."""
    launch.read_flags(train.Config, flags(settings))


def check_sample(settings: dict) -> None:
    """ValueError for a setting that sample.py does not know or whose value has another type."""
    launch.read_flags(sample.Config, flags(settings))


def training_images(settings: dict) -> str:
    """The source of the images that train.py trains on with these settings."""
    return launch.configure(train.Config, flags(settings)).data


def flags(settings: dict) -> list[str]:
    """{"adapter": ["norm"], "lr": 0.1} -> ["--adapter=norm", "--lr=0.1"]."""
    lists = {name: value if isinstance(value, list) else [value] for name, value in settings.items()}
    return [f"--{name}={value}" for name, values in lists.items() for value in values]


def to_toml(settings: dict) -> str:
    """The settings as a config file of train.py."""
    return launch.to_toml(make_dataclass("Settings", settings)(**settings))


def fill(value: Value, names: dict[str, object]) -> Value:
    """The value of a setting with every {name} replaced by the text of what it names."""
    if isinstance(value, list):
        return [fill(item, names) for item in value]
    for name, text in names.items():
        value = value.replace(f"{{{name}}}", str(text)) if isinstance(value, str) else value
    return value

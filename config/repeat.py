"""A call of sample.py as its images keep it: its settings in each PNG, and the same call from a PNG again."""

import os
import sys
from pathlib import Path
from typing import Any

from config.option import default_of
from config.read import Config, fields, read_flags
from config.sampling import Prompts, with_strength
from data.output.about import read_about

OF_A_CALL = ("out", "replace", "like")  # settings that say nothing about an image
IDLE = ("batch", "device", "precision", "attention", "compile")  # those that change at most its last bit
NOISE = "(seed, class or prompt, number)"  # what decides it; before 0.3 it was the place in the whole list
PATHS = ("run", "adapter", "model", "vae", "embedding", "control", "hint", "image", "mask")  # those that may be paths


def about_call(config: Config, path: str, files: list[tuple[str, float]], names: list[str]) -> dict:
    """What every image of a call says about itself: what is asked for most, and all settings, paths from the root.

    path: the checkpoint. files: the adapters with their strengths. names: the classes or prompts.
    """
    values = {name: value for name, value in config.values.items() if name not in OF_A_CALL}
    if Prompts in config:
        values |= {"prompt": names, "prompts": ""}
    return {
        "seed": values["seed"],
        "steps": values["steps"],
        "guidance": values["guidance"],
        "sampler": values["sampler"],
        "noise": NOISE,
        "model": anchored(path),
        "adapters": [[anchored(file), strength] for file, strength in files],
        "settings": {name: anchored(value, name) for name, value in values.items()},
    }


def anchored(value: Any, name: str = "model") -> Any:
    """A setting with the paths in it absolute, where they are of files that exist."""
    if isinstance(value, list):
        return [anchored(item, name) for item in value]
    if name not in PATHS or not value:
        return value
    word, equals, file = value.rpartition("=") if name == "embedding" else ("", "", value)
    strong = name in ("adapter", "control") and not Path(file).exists()
    file, strength = with_strength(file) if strong else (file, 1.0)
    absolute = os.path.abspath(file) if file and Path(file).exists() else file
    return f"{word}{equals}{absolute}" + (f":{strength}" if strength != 1 else "")


def settings_like(path: str, parts: list[type]) -> tuple[dict, int]:
    """The settings of the call that sampled a PNG, and the number of that image in it. ValueError without them."""
    about = read_about(path)
    settings, number = about.get("settings"), about.get("number")
    if not isinstance(settings, dict) or type(number) is not int:
        raise ValueError(f"{path}: does not say how it was sampled; --like takes a PNG of sample.py as it was written")
    if about.get("noise") != NOISE:
        print(
            f"{path} is of an earlier version, whose noise depended on the other classes or prompts of the call: what "
            "follows has all its settings, and other noise",
            file=sys.stderr,
        )
    lists = {name: value if isinstance(value, list) else [value] for name, value in settings.items()}
    # an empty text is a default, also of what is a list by now
    words = [f"--{name}={value}" for name, items in lists.items() for value in items if value != ""]
    try:
        given_then = read_flags(words, parts)
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from None
    defaults = {name: default_of(field) for name, (field, _) in fields(parts).items()}
    return {name: value for name, value in given_then.items() if value != defaults[name]}, number


def same_images(settings: dict, others: object) -> bool:
    """Whether two calls with these settings sample the same images."""
    return isinstance(others, dict) and all(
        settings.get(name) == others.get(name) for name in (settings.keys() | others.keys()) - set(IDLE)
    )

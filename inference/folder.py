"""The folder of a call's images: what each says about itself, and what may stand beside it."""

import os
from pathlib import Path
from typing import Any

from config import Config
from config import sampling as part
from config.sampling import with_strength
from data.images import SUFFIXES
from data.output.about import read_about
from data.output.samples import GRID
from inference.request import Request
from inference.settings import IDLE, OF_A_CALL

PATHS = ("run", "adapter", "model", "vae", "embedding", "control", "hint", "image")  # settings that may be paths


def about_call(config: Config, path: str, files: list[tuple[str, float]], request: Request) -> dict:
    """What every image of a call says about itself: what is asked for most, and all settings, paths from the root."""
    values = {name: value for name, value in config.values.items() if name not in OF_A_CALL}
    if part.Prompts in config:
        values |= {"prompt": request.names, "prompts": ""}
    return {
        "seed": values["seed"],
        "steps": values["steps"],
        "guidance": values["guidance"],
        "sampler": values["sampler"],
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
    file, strength = with_strength(file) if name == "adapter" and not Path(file).exists() else (file, 1.0)
    absolute = os.path.abspath(file) if Path(file).exists() else file
    return f"{word}{equals}{absolute}" + (f":{strength}" if strength != 1 else "")


def check_folder(out: Path, names: set[str], settings: dict, replace: bool) -> None:
    """ValueError for a folder that holds images other than those of a call with these settings.

    names: the files that the call writes. replace: samples of other settings are removed instead.
    """

    def deciding(values: dict) -> dict:
        return {name: value for name, value in values.items() if name not in IDLE}

    for path in sorted(out.iterdir()) if out.is_dir() else []:
        if path.suffix.lower() not in SUFFIXES or path.name == GRID:
            continue
        about = read_about(path) if path.suffix.lower() == ".png" else {}
        own = about.get("settings")
        if deciding(own) == deciding(settings) if isinstance(own, dict) else path.name in names:
            continue  # of this call, or of an earlier version and written anew
        if not replace or not isinstance(own, dict):
            kind = "a sample of other settings" if isinstance(own, dict) else "which is no sample of this call"
            way = "name another folder by --out" + (", or let its samples go by --replace" if own else "")
            raise ValueError(f"{out} holds {path.name}, {kind}: {way}")
        path.unlink()

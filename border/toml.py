"""The table of a TOML file."""

import tomllib
from pathlib import Path

from border.text import read_text


def read_table(path: str | Path) -> dict:
    """The table of a TOML file of settings. ValueError, in one sentence, for a file that cannot be read as one."""
    try:
        text = read_text(path)
    except ValueError as error:
        raise ValueError(f"config file {error}") from None
    except OSError as error:
        raise ValueError(f"config file {path}: {error}") from None
    try:
        return tomllib.loads(text)
    except (ValueError, RecursionError) as error:
        raise ValueError(f"config file {path}: {error}") from None

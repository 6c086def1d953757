"""The table of a TOML file."""

import re
import tomllib
from pathlib import Path

from border.text import in_words, read_text


def read_table(path: str | Path) -> dict:
    """The table of a TOML file of settings. ValueError, in one sentence, for a file that cannot be read as one."""
    try:
        text = read_text(path)
    except ValueError as error:
        raise ValueError(f"config file {error}") from None
    except OSError as error:
        raise ValueError(f"config file {in_words(error)}") from None
    try:
        return tomllib.loads(text)
    except (ValueError, RecursionError) as error:
        raise ValueError(f"config file {path}: {error}{toml_hint(text, str(error))}") from None


def toml_hint(text: str, fault: str) -> str:
    """What people write into such a file that is no TOML, for the end of an error; "" where nothing is known."""
    if text.lstrip().startswith("{"):
        return ": settings are TOML, a line each, as in steps = 900"
    number = re.search(r"at line (\d+)", fault)
    lines = text.splitlines()
    line = lines[int(number[1]) - 1].strip() if number and 0 < int(number[1]) <= len(lines) else ""
    if re.search(r'"[^"]*\\', line):
        return f": {line[:80]}; a path with backslashes stands in single quotes"
    if re.search(r"=\s*[-+]?\d+,\d", line):
        return f": {line[:80]}; a number has a point, no comma"
    return f": {line[:80]}" if line else ""

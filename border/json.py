"""JSON of others, read with the file's name in every error, and JSON that every parser reads, written.

JSON has no word for NaN and infinity. They are written as null.
"""

import json
import math
from pathlib import Path
from typing import Any

from border.text import TEXT_LIMIT, read_text


def parse_json(text: str, source: object) -> Any:
    """The value of a JSON text. Raises ValueError, which begins with `source`, for text that is none."""
    try:
        return json.loads(text)
    except (ValueError, RecursionError) as error:
        raise ValueError(f"{source}: not valid JSON: {error}") from None


def read_json(path: str | Path, limit: int = TEXT_LIMIT) -> dict:
    """The JSON object in a file. ValueError for anything else, and as from `read_text`."""
    content = parse_json(read_text(path, limit), path)
    if not isinstance(content, dict):
        raise ValueError(f"{path}: expected a JSON object, found a {type(content).__name__}")
    return content


def to_json(value: Any, indent: int | None = None) -> str:
    """JSON text without NaN and infinity, which become null."""
    return json.dumps(finite(value), indent=indent, allow_nan=False)


def finite(value: Any) -> Any:
    """The same value with None for every number in it that is not finite."""
    if isinstance(value, dict):
        return {key: finite(inner) for key, inner in value.items()}
    if isinstance(value, list | tuple):
        return [finite(inner) for inner in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value

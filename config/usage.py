"""The page that --help prints: one group a part, one line a setting."""

import dataclasses
import inspect
from collections.abc import Iterable

from config.option import choices_of, default_of, limits_of


def usage(title: str, parts: Iterable[type]) -> str:
    """The script's own words, then every part under its first line: flag, help, choices or range, default."""
    lines = [title.strip()]
    for part in parts:
        lines += ["", inspect.getdoc(part).split("\n")[0]]
        for field in dataclasses.fields(part):
            flag, values = field.name.replace("_", "-"), " | ".join(choices_of(field)) or limits_of(field)
            words = field.metadata["help"] + (f" ({values})" if values else "")
            lines.append(f"  --{flag:<16} {words} [{default_of(field)}]")
    return "\n".join(lines)

"""The page that --help prints: one group a part, one line a setting."""

import dataclasses
import inspect
from collections.abc import Iterable
from typing import Any

from config.option import choices_of, default_of, flag, limits_of


def usage(title: str, parts: Iterable[type], **defaults: Any) -> str:
    """The script's own words, then every part under its first line: flag, help, choices or range, and default.

    defaults: those that differ from the fields' own.
    """
    lines = [title.strip()]
    for part in parts:
        lines += ["", inspect.getdoc(part).split("\n")[0]]
        for field in dataclasses.fields(part):
            values = " | ".join(filter(None, choices_of(field))) or limits_of(field)
            default = defaults.get(field.name, default_of(field))
            default = " ".join(default) if isinstance(default, list) else "" if default is False else str(default)
            words = [field.metadata["help"], f"({values})" if values else "", f"[{default}]" if default else ""]
            lines.append(f"  {flag(field.name):<18} {' '.join(filter(None, words))}")
    return "\n".join(lines)

"""Where files of others enter: text in one way, JSON with its file's name, and values of a known type and range."""

from border.json import parse_json, read_json, to_json
from border.text import in_words, read_lfs_pointer, read_text
from border.toml import read_table
from border.types import checked, checked_dataclass, number_hint, shown

__all__ = [
    "checked",
    "checked_dataclass",
    "in_words",
    "number_hint",
    "parse_json",
    "read_json",
    "read_lfs_pointer",
    "read_table",
    "read_text",
    "shown",
    "to_json",
]

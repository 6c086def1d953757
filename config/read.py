"""From flags and TOML files to the parts of a command: defaults < TOML file < flags, every name and type checked.

`--name value` or `--name=value` sets a setting, `--name` alone a boolean one; a list takes the flag several times.
"""

import dataclasses
import difflib
import json
import re
import sys
import typing
from collections.abc import Callable, Iterable, Sequence
from functools import cache
from pathlib import Path
from typing import Any, TypeVar

from border import in_words, number_hint, read_table
from config.option import check_part, flag
from config.usage import usage

Part = TypeVar("Part")
WORD = 1_000  # characters; paths are shorter


class Config:
    """The settings of one command: flat in `values` and in files, by part in the code, config[Loop].lr."""

    def __init__(self, parts: Iterable[type], values: dict[str, Any]):
        """values: of any of the parts' fields; the others keep their defaults.

        Raises ValueError for a value out of its range, and for values that do not go together (a part's own `check`).
        """
        self.parts = {}
        for part in parts:
            own = {field.name: values[field.name] for field in dataclasses.fields(part) if field.name in values}
            self.parts[part] = part(**own)
            check_part(self.parts[part])

    def __getitem__(self, part: type[Part]) -> Part:
        return self.parts[part]

    def __contains__(self, part: type) -> bool:
        return part in self.parts

    @property
    def values(self) -> dict[str, Any]:
        """Every setting by its name."""
        return {name: value for part in self.parts.values() for name, value in dataclasses.asdict(part).items()}

    def replace(self, **values: Any) -> "Config":
        """The same with other values."""
        return Config(self.parts, self.values | values)


def read(argv: Sequence[str] | None, *parts: type, title: str = "") -> Config:
    """The settings of a script with one set of parts, from [CONFIG.toml] and flags; --help prints them and exits."""
    argv = list(sys.argv[1:] if argv is None else argv)
    if "-h" in argv or "--help" in argv:
        print(usage(title, parts))
        sys.exit(0)
    return Config(parts, given(argv, parts))


def given(argv: Sequence[str] | None, parts: Iterable[type]) -> dict[str, Any]:
    """Only what the command line says: the values of [CONFIG.toml], then those of the flags, each of its field's type.

    Raises ValueError, in one sentence, for a name that no part has (with the nearest there is) and a value of
    another type.
    """
    argv = list(sys.argv[1:] if argv is None else argv)
    first = argv[0] if argv else "-"
    if not first.isascii() and first[0] in "\u2010\u2011\u2012\u2013\u2014\u2212":  # a hyphen that a text made long
        raise ValueError(no_flag(first, "", fields(parts)))
    values = read_toml(argv.pop(0), parts) if not first.startswith("-") else {}
    return values | read_flags(argv, parts)


def read_toml(path: str | Path, parts: Iterable[type], stored: bool = False) -> dict[str, Any]:
    """The table of a TOML file. stored: as a run left it, so that settings of former versions are passed over."""
    kinds, values = fields(parts), {}
    for key, value in read_table(path).items():
        name = renamed(key, kinds, quiet=stored)
        if stored and name not in kinds:
            continue
        wanted = kinds[known(name, kinds, f"{path}: ")][1]
        if wanted is float and isinstance(value, int) and not isinstance(value, bool):
            value = float(value)
        elif wanted is str and type(value) is int:  # a size is a number or WIDTHxHEIGHT
            value = str(value)
        elif wanted == list[str]:
            if not isinstance(value, list) or not all(isinstance(item, str) for item in value):
                raise ValueError(f"{path}: {key} must be a list of strings, found {value!r}")
        elif type(value) is not wanted:
            raise ValueError(f"{path}: {key} must be {wanted.__name__}, found {value!r}")
        values[name] = value
    return values


def read_flags(argv: Sequence[str], parts: Iterable[type]) -> dict[str, Any]:
    """`--key value` pairs as values of the fields' types."""
    kinds, values, position = fields(parts), {}, 0
    while position < len(argv):
        word = argv[position]
        if not word.startswith("--"):
            raise ValueError(no_flag(word, argv[position - 1] if position else "", kinds))
        key, equals, value = word[2:].partition("=")
        key = renamed(key.replace("-", "_"), kinds)
        wanted = kinds[known(key, kinds, "")][1]
        if wanted is bool and not equals:
            value = "true"
        elif not equals:
            position += 1
            if position == len(argv):
                raise ValueError(f"{flag(key)} needs a value of type {getattr(wanted, '__name__', wanted)}")
            value = argv[position]
        if wanted == list[str]:
            values.setdefault(key, []).append(value)
        else:
            values[key] = parse(wanted, key, value)
        position += 1
    return values


def no_flag(word: str, before: str, kinds: dict) -> str:
    """What is wrong with a word that stands where a flag is expected; before: the word before it."""
    name = word.lstrip("-\u2010\u2011\u2012\u2013\u2014\u2212").partition("=")[0].replace("-", "_")
    if name in kinds and name != word:
        return f"found {word!r}: a flag begins with two plain hyphens, {flag(name)}"
    former = before[2:].replace("-", "_") if before.startswith("--") else ""
    if former in kinds and kinds[former][1] is bool:
        return f"{before} takes no value, found {word!r}"
    return f"expected a flag such as {flag(next(iter(kinds)))}, found {word!r}"


def fields(parts: Iterable[type]) -> dict[str, tuple[dataclasses.Field, type]]:
    """Name -> (field, type), of all parts."""
    return {name: field for part in parts for name, field in fields_of(part).items()}


@cache
def fields_of(part: type) -> dict[str, tuple[dataclasses.Field, type]]:
    """Name -> (field, type: str, int, float, bool or list[str]), of one part."""
    types = typing.get_type_hints(part)
    return {field.name: (field, types[field.name]) for field in dataclasses.fields(part)}


def renamed(key: str, kinds: dict, quiet: bool = False) -> str:
    """The name that a setting has today; a notice where `key` is its former one."""
    for name, (field, _) in kinds.items():
        if key not in kinds and key == field.metadata.get("old"):
            if not quiet:
                print(f"{flag(key)} is called {flag(name)} now; the old name goes in the next release", file=sys.stderr)
            return name
    return key


def known(key: str, kinds: dict, where: str) -> str:
    """The key, or one sentence with the nearest key there is."""
    if key not in kinds:
        near = difflib.get_close_matches(key, kinds, n=1, cutoff=0)
        raise ValueError(f"{where}unknown key {key!r}; did you mean {near[0]!r}?")
    return key


def parse(wanted: type, key: str, text: str) -> str | int | float | bool:
    """The text of a flag as a value of its type."""
    if wanted is bool:
        if text.lower() not in ("true", "false"):
            raise ValueError(f"{flag(key)} must be true or false, found {text!r}")
        return text.lower() == "true"
    try:
        return wanted(text)
    except ValueError:
        hint = number_hint(text, wanted)
        raise ValueError(f"{flag(key)} must be {wanted.__name__}, found {text!r}{hint}") from None


def check_unread(values: dict[str, Any], rows: dict[str, Iterable[type]], chosen: str) -> None:
    """Raise ValueError for a setting that the chosen row does not read, with the rows that do.

    rows: name -> the parts that it reads; of "text with a new model" and its like, "text" stands for all of them.
    """
    for name in values:
        readers = [row for row, parts in rows.items() if name in fields(parts)]
        if chosen not in readers:
            stems = dict.fromkeys(_stem(row) for row in readers)
            whole = {stem for stem in stems if all(row in readers for row in rows if _stem(row) == stem)}
            words = list(dict.fromkeys(_stem(row) if _stem(row) in whole else row for row in readers))
            own = chosen if _stem(chosen) in stems else _stem(chosen)
            listed = " and ".join(filter(None, (", ".join(words[:-1]), words[-1])))
            raise ValueError(f"{flag(name)} is read by {listed}, not by {own}")


def _stem(row: str) -> str:
    return row.split(" with ")[0]


def to_toml(values: dict[str, Any]) -> str:
    """Settings as TOML text that reads back to the same values."""

    def literal(value: Any) -> str:
        if isinstance(value, bool):
            return str(value).lower()
        if isinstance(value, list):
            return "[" + ", ".join(map(literal, value)) + "]"
        # JSON's escapes are TOML's; only DEL needs one in TOML alone
        return (
            json.dumps(value, ensure_ascii=False).replace("\x7f", "\\u007f") if isinstance(value, str) else repr(value)
        )

    return "".join(f"{key} = {literal(value)}\n" for key, value in values.items())


def run_script(main: Callable[[], None]) -> None:
    """Run a script's main; an error that it understands ends in one sentence and exit status 1."""
    for stream in (sys.stdout, sys.stderr):
        stream.reconfigure(errors="backslashreplace")  # a terminal that lacks a letter of a name does not end a run
    try:
        main()
    except KeyboardInterrupt:
        print("stopped by Ctrl-C", file=sys.stderr)
        sys.exit(130)
    except ValueError as error:
        sys.exit(f"error: {shortened(str(error))}")
    except OSError as error:
        sys.exit(f"error: {in_words(error)}")


def shortened(text: str) -> str:
    """The text with every word of more than WORD characters, which some file or flag brought along, cut to it."""
    return re.sub(rf"(\S{{{WORD}}})\S+", r"\1...", text)

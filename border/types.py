"""Values of others, checked where they enter: a number is a number of its range, a list has its items' type.

    checked(values.get("lora_alpha", 8), float, "lora_alpha", at_least=0)
    checked(header["sources"], list[list[int]] | None, "sources")

Files are JSON, so the types are those of JSON: bool, int, float, str, list[T], dict[str, T], T | None; tuple[T, ...] is
a list that becomes a tuple. A whole number is no bool, and becomes a float where one is wanted. NaN and infinity are
refused.
"""

import dataclasses
import math
import sys
import types
import typing
from collections.abc import Mapping
from typing import Any

ENTRIES = 1_000_000  # of one list or dict
CHARACTERS = 100_000  # of one text
LARGEST = 2**53  # of a whole number: beyond it not every number is a float
WORDS = {bool: "true or false", int: "a whole number", float: "a number", str: "a text", type(None): "null"}


def checked(value: Any, kind: Any, name: str, at_least: float | None = None, at_most: float | None = None) -> Any:
    """The value as this type. name: what errors call it. The limits are those of every number in the value.

    Raises ValueError, in one sentence, for a value of another type, out of its range, or too long.
    """
    origin, parts = typing.get_origin(kind), typing.get_args(kind)
    if origin in (types.UnionType, typing.Union):
        kinds = [part for part in parts if part is not type(None)]
        if value is None and len(kinds) < len(parts):
            return None
        for part in kinds[:-1]:
            if matches(value, part):
                return checked(value, part, name, at_least, at_most)
        return checked(value, kinds[-1], name, at_least, at_most)
    if not matches(value, kind):
        raise ValueError(f"{name} must be {words(kind)}, found {shown(value)}")
    if isinstance(value, list | tuple | dict) and len(value) > ENTRIES:
        raise ValueError(f"{name} has {len(value):,} entries, and at most {ENTRIES:,} are read")
    if origin in (list, tuple):
        return origin(checked(item, parts[0], f"{name}[{i}]", at_least, at_most) for i, item in enumerate(value))
    if origin is dict:
        for key in value:
            checked(key, str, f"a name in {name}")
        return {key: checked(item, parts[1], f"{name}[{key!r}]", at_least, at_most) for key, item in value.items()}
    if kind is str and len(value) > CHARACTERS:
        raise ValueError(f"{name} has {len(value):,} characters, and at most {CHARACTERS:,} are read")
    if kind in (int, float):
        largest = LARGEST if kind is int else sys.float_info.max
        low, high = (-largest if at_least is None else at_least), (largest if at_most is None else at_most)
        if not low <= value <= high:  # NaN lies in no range
            limits = [] if at_least is None else [f"at least {at_least:g}"]
            limits += [] if at_most is None else [f"at most {at_most:g}"]
            raise ValueError(f"{name} must be {' and '.join(limits) or 'a finite number'}, found {shown(value)}")
        return kind(value)
    return value


def matches(value: Any, kind: Any) -> bool:
    """Whether the value itself, without its items, has the type."""
    origin = typing.get_origin(kind) or kind
    if kind is Any:
        return True
    if origin in (list, tuple):
        return isinstance(value, list | tuple)
    if origin is float:
        return isinstance(value, int | float) and not isinstance(value, bool)
    return isinstance(value, origin) and (origin is not int or not isinstance(value, bool))


def words(kind: Any) -> str:
    """The type as an error calls it."""
    origin = typing.get_origin(kind) or kind
    if origin in (list, tuple):
        return "a list"
    return WORDS.get(origin, "an object")


def number_hint(text: str, kind: type) -> str:
    """How a number is written that stands in the text in another way, ": write 0.003"; "" for any other text."""
    share = text.strip().endswith("%")
    plain = text.strip().removesuffix("%").replace(",", ".").replace("_", "")
    try:
        number = float(plain) / (100 if share else 1)
    except ValueError:
        return ""
    if not math.isfinite(number) or kind is int and (number != int(number) or "," in text):
        return ""
    return f": write {int(number) if kind is int else f'{number:g}'}"


def shown(value: Any) -> str:
    """The value as an error shows it, of a bounded length."""
    text = "a long number" if isinstance(value, int) and abs(value) > LARGEST else repr(value)
    return text if len(text) <= 80 else text[:77] + "..."


def checked_dataclass(cls: type, values: Mapping[str, Any], limits: Mapping[str, tuple[float, float]]) -> Any:
    """The dataclass with these fields, each of its annotated type. limits: {field: (smallest, largest)} of its numbers.

    Raises ValueError for a field that the class lacks, one without a value, and as from `checked`.
    """
    kinds, fields = typing.get_type_hints(cls), {field.name: field for field in dataclasses.fields(cls)}
    unknown = [name for name in values if name not in fields]
    if unknown:
        raise ValueError(f"{cls.__name__} has no field {unknown[0]!r}")
    needed = [
        name
        for name, field in fields.items()
        if name not in values and field.default is field.default_factory is dataclasses.MISSING
    ]
    if needed:
        raise ValueError(f"{cls.__name__} needs {', '.join(needed)}")
    return cls(**{name: checked(value, kinds[name], name, *limits.get(name, ())) for name, value in values.items()})

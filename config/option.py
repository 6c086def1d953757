"""One setting: its default, its help, and the values that it may have."""

import dataclasses
import math
import types
import typing
from collections.abc import Callable, Iterable
from typing import Any

LIMITS = {  # name of a limit: (whether a number keeps it, the words for it)
    "at_least": (lambda value, limit: value >= limit, "at least {:g}"),
    "above": (lambda value, limit: value > limit, "above {:g}"),
    "at_most": (lambda value, limit: value <= limit, "at most {:g}"),
    "below": (lambda value, limit: value < limit, "below {:g}"),
}


def option(
    default: Any,
    help: str,
    *,
    choices: Callable[[], Iterable[str]] | Iterable[str] = (),
    old: str = "",
    **limits: float,
) -> Any:
    """A dataclass field for one setting.

    choices: the words that a text may be, or a function that lists them. limits: `at_least`, `above`, `at_most`,
    `below`, of a number; every number must be finite. old: a former name, still read for one release, with a notice.
    A list as default is a setting that is given several times.
    """
    assert limits.keys() <= LIMITS.keys(), f"limits are {', '.join(LIMITS)}"
    metadata = {"help": help, "choices": choices, "limits": limits, "old": old}
    if isinstance(default, list):
        return dataclasses.field(default_factory=lambda: list(default), metadata=metadata)
    return dataclasses.field(default=default, metadata=metadata)


def default_of(field: dataclasses.Field) -> Any:
    """The default of a field, a fresh list for a list."""
    return field.default if field.default is not dataclasses.MISSING else field.default_factory()


def choices_of(field: dataclasses.Field) -> list[str]:
    """The words that the field may be; [] for any."""
    choices = field.metadata.get("choices", ())
    return list(choices() if isinstance(choices, types.FunctionType) else choices)


def limits_of(field: dataclasses.Field) -> str:
    """The range of a number in words, "above 0 and below 1"; "" for any."""
    return " and ".join(LIMITS[name][1].format(limit) for name, limit in field.metadata.get("limits", {}).items())


def check_value(field: dataclasses.Field, value: Any, where: str = "--") -> None:
    """Raise ValueError, in one sentence, for a value that is not of the field's choices or out of its range."""
    name = where + (field.name.replace("_", "-") if where == "--" else field.name)
    if isinstance(value, (int, float)) and not isinstance(value, bool):
        kept = all(LIMITS[limit][0](value, bound) for limit, bound in field.metadata.get("limits", {}).items())
        if not math.isfinite(value) or not kept:
            raise ValueError(f"{name} must be {limits_of(field) or 'a finite number'}, found {value}")
    choices = choices_of(field)
    if choices and value not in choices:
        raise ValueError(f"{name} must be one of {', '.join(choices)}, found {value!r}")


def typed(kind: type, field: dataclasses.Field) -> type:
    """The type of a part's field: str, int, float, bool or list[str]."""
    return typing.get_type_hints(kind)[field.name]

"""One setting: its default, its help, and the values that it may have."""

import dataclasses
import math
import types
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
    needs: str = "",
    old: str = "",
    **limits: float,
) -> Any:
    """A dataclass field for one setting.

    choices: the words that a text may be, or a function that lists them. limits: `at_least`, `above`, `at_most`,
    `below`, of a number; every number must be finite. needs: another setting of the part, without which this one has no
    effect. old: a former name, still read for one release, with a notice. A list as default is a setting that is given
    several times.
    """
    metadata = {"help": help, "choices": choices, "limits": limits, "needs": needs, "old": old}
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


def check_part(part: Any) -> None:
    """Raise ValueError, in one sentence, for a value of the part that it may not have, or that has no effect.

    A part's own method `check`, where it has one, looks at what must go together.
    """
    for field in dataclasses.fields(part):
        value, needs = getattr(part, field.name), field.metadata["needs"]
        for item in value if isinstance(value, list) else [value]:
            check_value(field, item)
        if needs and not getattr(part, needs) and value != default_of(field):
            raise ValueError(f"{flag(field.name)} has no effect without {flag(needs)}")
    if hasattr(part, "check"):
        part.check()


def check_value(field: dataclasses.Field, value: Any) -> None:
    """Raise ValueError for a value that is not of the field's choices, or out of its range."""
    if isinstance(value, (int, float)) and not isinstance(value, bool):
        inside = all(LIMITS[limit][0](value, bound) for limit, bound in field.metadata["limits"].items())
        if not math.isfinite(value) or not inside:
            raise ValueError(f"{flag(field.name)} must be {limits_of(field) or 'a finite number'}, found {value}")
    choices = choices_of(field)
    if choices and value not in choices:
        words = ", ".join(choice or "empty" for choice in choices)
        raise ValueError(f"{flag(field.name)} must be one of {words}, found {value!r}")


def flag(name: str) -> str:
    """The name of a setting as it is typed."""
    return "--" + name.replace("_", "-")

"""Reads the spec of a method: [PART.]NAME[:OPTION=VALUE,...], such as `text.lora:rank=4,alpha=8`."""

import difflib
import inspect
import typing
from collections.abc import Iterable

from torch import nn

from adapters.methods import METHODS

LARGEST = 100_000  # of a number: no width, rank or id is larger
# old option -> its name today, per method: adapter files that were written before hold the old one
RENAMED = {"tokens": {"start": "init"}}


def split(spec: str) -> tuple[str, str]:
    """ "text.lora:rank=4" -> ("text", "lora:rank=4"): the part of the model that a method is for, "" for all of it."""
    head, colon, options = spec.partition(":")
    part, _, name = head.rpartition(".")
    return part, name + colon + options


def part_of(model: nn.Module, part: str) -> nn.Module:
    """The submodule of that dotted name, the model itself for "". ValueError, with the names there are, if missing."""
    try:
        return model.get_submodule(part)
    except AttributeError:
        there = ", ".join(name for name, _ in model.named_children())
        raise ValueError(f"the model has no part {part!r}: it has {there}") from None


def parse(spec: str) -> tuple[str, dict[str, int | float | str]]:
    """ "lora:rank=8,alpha=16" -> ("lora", {"rank": 8, "alpha": 16.0}): only the options given, typed by the signature.

    Raises ValueError for an unknown method or option, naming the nearest known one, and for a value of another type.
    """
    name, colon, rest = spec.partition(":")
    if name not in METHODS:
        known = ", ".join(METHODS)
        method, comma, options = name.partition(",")
        if comma and method in METHODS:
            raise ValueError(f"unknown adapter {name!r}: options stand behind a colon, {method}:{options}")
        raise ValueError(f"unknown adapter {name!r}, did you mean {_nearest(name, METHODS)!r}? There are {known}")
    signature = inspect.signature(METHODS[name], eval_str=True).parameters.values()
    allowed = {p.name: p.annotation for p in signature if p.kind is p.KEYWORD_ONLY}
    options = {}
    for item in rest.split(",") if colon else []:
        key, equals, value = item.partition("=")
        if not equals:
            raise ValueError(f"adapter {name} takes option=value, found {item!r} in {spec!r}")
        key = RENAMED.get(name, {}).get(key, key)
        if not allowed:
            raise ValueError(f"adapter {name} takes no options, found {key!r}")
        if key not in allowed:
            raise ValueError(f"adapter {name} has no option {key!r}, did you mean {_nearest(key, allowed)!r}?")
        if key in options:
            raise ValueError(f"adapter {name} has option {key!r} twice in {spec!r}")
        options[key] = _typed(name, key, value, allowed[key])
    return name, options


def _typed(name: str, key: str, value: str, annotation: type) -> int | float | str:
    """The text as int, float or str; of `int | None`, None is the default that the option has when it is left out."""
    kind = next(t for t in typing.get_args(annotation) or (annotation,) if t is not type(None))
    try:
        found = kind(value)
    except ValueError:
        raise ValueError(f"adapter {name}: option {key!r} must be {kind.__name__}, found {value!r}") from None
    if kind is not str and not -LARGEST <= found <= LARGEST:
        raise ValueError(f"adapter {name}: option {key!r} must be at most {LARGEST:,}, found {value[:80]!r}")
    return found


def _nearest(word: str, known: Iterable[str]) -> str:
    """The known word most like `word`."""
    return difflib.get_close_matches(word.strip().lower(), list(known), n=1, cutoff=0.0)[0]

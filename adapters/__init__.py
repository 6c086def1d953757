"""Fine-tuning methods, each in its own file, attached to a built model by a spec such as `lora:rank=8,alpha=16`.

A method is a function method(model, generator, *, options): it specialises layers and marks what trains. Its
keyword-only parameters, with their annotations, are the options that a spec may name. To add a method, write its file
and its line in METHODS; tests/adapters/test_contract.py then holds it to what all promise.
"""

import difflib
import inspect
import typing
from collections.abc import Sequence

import torch
from torch import nn

from adapters import bitfit, bottleneck, classes, difffit, full, lora, norm
from adapters.core import carried, counts, fold, freeze, trained

__all__ = ["METHODS", "attach", "carried", "counts", "fold", "parse", "trained"]

METHODS = {
    "full": full.full,
    "bitfit": bitfit.bitfit,
    "norm": norm.norm,
    "classes": classes.classes,
    "difffit": difffit.difffit,
    "lora": lora.lora,
    "bottleneck": bottleneck.bottleneck,
}


def attach(model: nn.Module, specs: str | Sequence[str], generator: torch.Generator | None = None) -> nn.Module:
    """Freeze the whole model, then apply each spec's method in order. In place; returns model.

    generator: source of the methods' initial random values; None is torch's global one. Raises ValueError for a bad
    spec (the model is then untouched) and for a method that finds nothing to train in this model (build it again).
    """
    calls = [parse(spec) for spec in ([specs] if isinstance(specs, str) else specs)]
    if not calls:
        raise ValueError("no adapter given; 'full' trains every parameter")
    freeze(model)
    for name, options in calls:
        try:
            METHODS[name](model, generator, **options)
        except ValueError as error:
            raise ValueError(f"adapter {name}: {error}") from error
    return model


def parse(spec: str) -> tuple[str, dict]:
    """"lora:rank=8,alpha=16" -> ("lora", {"rank": 8, "alpha": 16.0}): only the options given, typed by the signature.

    Raises ValueError for an unknown method or option, naming the nearest known one, and for a value of another type.
    """
    name, colon, rest = spec.partition(":")
    if name not in METHODS:
        known = ", ".join(METHODS)
        raise ValueError(f"unknown adapter {name!r}, did you mean {_nearest(name, METHODS)!r}? There are {known}")
    signature = inspect.signature(METHODS[name], eval_str=True).parameters.values()
    allowed = {p.name: p.annotation for p in signature if p.kind is p.KEYWORD_ONLY}
    options = {}
    for item in rest.split(",") if colon else []:
        key, equals, value = item.partition("=")
        if not equals:
            raise ValueError(f"adapter {name} takes option=value, found {item!r} in {spec!r}")
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
        return kind(value)
    except ValueError:
        raise ValueError(f"adapter {name}: option {key!r} must be {kind.__name__}, found {value!r}") from None


def _nearest(word: str, known) -> str:
    """The known word most like `word`."""
    return difflib.get_close_matches(word, known, n=1, cutoff=0.0)[0]

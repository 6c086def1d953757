"""Fine-tuning methods, each in its own file, attached to a built model by a spec such as `lora:rank=8,alpha=16`.

`text.lora:rank=4` is for the part of the model called text alone.

A method is a function method(model, generator, *, options): it specialises layers and marks what trains. Its
keyword-only parameters, with their annotations, are the options that a spec may name. To add a method, write its file
and its line in METHODS; tests/adapters/test_contract.py then holds it to what all promise.
"""

import difflib
import inspect
import typing
from collections.abc import Callable, Sequence
from functools import partial

import torch
from torch import nn

from adapters import (
    bitfit,
    bnn,
    bottleneck,
    classes,
    crossattn,
    difffit,
    dora,
    full,
    lora,
    modulate,
    norm,
    oft,
    tokens,
    vpt,
)
from adapters.bnn import sampled
from adapters.core import carried, computing_as, counts, fold, freeze, hand_down, penalties, trained

__all__ = [
    "METHODS",
    "attach",
    "attach_beside",
    "carried",
    "counts",
    "fold",
    "parse",
    "penalties",
    "sampled",
    "split",
    "trained",
]

METHODS = {
    "full": full.full,
    "bitfit": bitfit.bitfit,
    "norm": norm.norm,
    "classes": classes.classes,
    "difffit": difffit.difffit,
    "lora": lora.lora,
    "dora": dora.dora,
    "oft": oft.oft,
    "modulate": modulate.modulate,
    "bnn": bnn.bnn,
    "bottleneck": bottleneck.bottleneck,
    "vpt": vpt.vpt,
    "crossattn": crossattn.crossattn,
    "tokens": tokens.tokens,
}


def attach(model: nn.Module, specs: str | Sequence[str], generator: torch.Generator | None = None) -> nn.Module:
    """Freeze the whole model, then apply each spec's method in order. In place; returns model.

    generator: source of the methods' initial random values; None is torch's global one. Raises ValueError for a bad
    spec (the model is then untouched) and for a method that finds nothing to train in this model (build it again).
    """
    specs = [split(spec) for spec in ([specs] if isinstance(specs, str) else specs)]
    calls = [(part_of(model, part), *parse(spec)) for part, spec in specs]
    if not calls:
        raise ValueError("no adapter given; 'full' trains every parameter")
    freeze(model)
    for (module, name, options), (part, _) in zip(calls, specs):
        hand_down(model, part)
        try:
            METHODS[name](module, generator, **options)
        except ValueError as error:
            raise ValueError(f"adapter {name}: {error}") from error
    return model


def attach_beside(model: nn.Module, specs: str | Sequence[str], generator: torch.Generator | None = None) -> Callable:
    """`attach`, for methods that leave the weights alone -> before(): a context in which the model has none of them.

    So a student and its teacher are one model in memory. A mixin changes the class of its layer and no weight in it,
    so that the classes from before are the model from before. Raises ValueError as `attach`, and where weights train.
    """
    classes = {layer: type(layer) for layer in model.modules()}
    attach(model, specs, generator)
    inside = sorted(trained(model).keys() - carried(model))
    if inside:
        raise ValueError(
            f"only what stands beside the weights, such as lora, can be switched off, and {len(inside)} of these "
            f"parameters train in place, {inside[0]} for one"
        )
    return partial(computing_as, classes)


def split(spec: str) -> tuple[str, str]:
    """ "text.lora:rank=4" -> ("text", "lora:rank=4"): the part of the model that a method is for, "" for all of it."""
    head, colon, options = spec.partition(":")
    part, _, name = head.rpartition(".")
    return part, name + colon + options


def part_of(model: nn.Module, part: str) -> nn.Module:
    """The submodule of that dotted name. ValueError, with the names there are, if there is none."""
    try:
        return model.get_submodule(part)
    except AttributeError:
        there = ", ".join(name for name, _ in model.named_children())
        raise ValueError(f"the model has no part {part!r}: it has {there}") from None


def parse(spec: str) -> tuple[str, dict]:
    """ "lora:rank=8,alpha=16" -> ("lora", {"rank": 8, "alpha": 16.0}): only the options given, typed by the signature.

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

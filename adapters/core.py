"""Specialise layers of a built model in place, choose what trains, and fold the result back to plain layers.

A method is a mixin whose `forward` is its paper's equation. `specialize` changes the class of one existing layer, so
the backbone never learns about it: the same object, the same state-dict keys, a new forward. A mixin has
    setup(self, **options)   adds its parameters beside weight and bias, all with requires_grad True
    forward(self, x)         the equation, with super().forward(x) as the layer underneath
    fold(self)               writes its effect into weight and bias of the layer underneath, then a plain one
    added                    the names of the attributes that setup made, removed again by `fold(model)`
    innermost                if it has it: True, it goes under older mixins too, for its equation needs the plain W
    penalty(self)            if it has one: what it adds to the training loss, and its name in the log
A mixin whose effect no weights can hold, such as a nonlinear path, has no `fold` and stays on its layer.
`requires_grad` is the only truth about what trains: optimizer, EMA and adapter file all read it.
"""

import re
from collections.abc import Iterable
from contextlib import contextmanager
from functools import cache, reduce
from itertools import takewhile

import torch
from torch import nn


@cache
def adapted_class(mixin: type, base: type) -> type:
    """The class `mixin` over `base`, made once: LoRA + Linear -> LoRALinear. base may itself be adapted."""
    body = {"__module__": __name__, "__reduce_ex__": _reduce, "adapted": (mixin, base)}
    return type(mixin.__name__ + base.__name__, (mixin, base), body)


def specialize(layer: nn.Module, mixin: type, **options) -> None:
    """Give one layer an adapted class and let the mixin add its parameters.

    Newer mixins go over older ones; one that is `innermost` goes under them. Raises ValueError if the layer already
    carries the mixin (fold the first one, if it folds, before the second) or another that is `innermost`.
    """
    if mixin in type(layer).mro():
        found = f"{type(layer).__name__}({layer.extra_repr()}) already carries {mixin.__name__}, and takes it once"
        raise ValueError(f"{found}: fold the first, if it folds, before a second")
    plain, mixins = _unstack(type(layer))
    inner = [one for one in (mixin, *mixins) if getattr(one, "innermost", False)]
    if len(inner) > 1:
        names = " and ".join(one.__name__ for one in inner)
        raise ValueError(f"{names} both need the plain weights of {layer}: fold one first, or give them other layers")
    mixins.insert(0 if mixin in inner else len(mixins), mixin)
    layer.__class__ = _stack(plain, mixins)
    mixin.setup(layer, **options)


def match(model: nn.Module, pattern: str, kinds: type | tuple[type, ...]) -> list[tuple[str, nn.Module]]:
    """The layers of the given kinds whose dotted name the regex finds (re.search), in the model's order.

    Raises ValueError if there is none, naming the layers that the model has, or if the pattern is no regex.
    """
    layers = {name: layer for name, layer in model.named_modules() if isinstance(layer, kinds)}
    return [(name, layers[name]) for name in _search(pattern, layers, "layer")]


def freeze(model: nn.Module) -> None:
    """requires_grad False everywhere, after `fixed` has noted what was frozen before."""
    fixed(model)
    model.requires_grad_(False)


def unfreeze(model: nn.Module, pattern: str) -> None:
    """Train the parameters whose dotted name the regex finds, beside those that train already. ValueError if none."""
    parameters = dict(model.named_parameters())
    for name in _search(pattern, parameters, "parameter"):
        parameters[name].requires_grad_(True)


def fixed(model: nn.Module) -> frozenset[str]:
    """Names of the parameters that were built frozen, tables like DiT's pos_embed: those frozen at the first call.

    The model carries the names (`fixed_names`), so that they outlive `freeze` and are copied and pickled with it.
    """
    if not hasattr(model, "fixed_names"):
        model.fixed_names = frozenset(name for name, p in model.named_parameters() if not p.requires_grad)
    return model.fixed_names


def hand_down(model: nn.Module, part: str) -> None:
    """Tell a part of the model (its dotted name, "" for the model) which of its parameters were built frozen."""
    names = [name.removeprefix(f"{part}.") for name in fixed(model) if name.startswith(f"{part}.")]
    if part:
        model.get_submodule(part).fixed_names = frozenset(names)


def trained(model: nn.Module) -> dict[str, nn.Parameter]:
    """Dotted name -> parameter, for what trains."""
    return {name: p for name, p in model.named_parameters() if p.requires_grad}


def counts(model: nn.Module) -> tuple[int, int]:
    """(numbers that train, all numbers in the model's parameters)."""
    return sum(p.numel() for p in trained(model).values()), sum(p.numel() for p in model.parameters())


@torch.no_grad()
def fold(model: nn.Module, keep: type | tuple[type, ...] = ()) -> nn.Module:
    """Write the mixins into the weights of their layers and give these their plain classes back, with the same output.

    The innermost first, as the forward nests: gamma over LoRA is gamma (W + s B A), LoRA over gamma is gamma W + s B A.
    A mixin that does not fold stays, and so does every newer one over it: LoRA over y = h + f(h) is h + f(h) + s B A x,
    and with s B A in W, f would see it. keep: a layer with this mixin stays whole. Plain parameters keep their
    requires_grad. In place; returns model.
    """
    for layer in model.modules():
        plain, mixins = _unstack(type(layer))
        folding = [] if isinstance(layer, keep) else list(takewhile(lambda mixin: hasattr(mixin, "fold"), mixins))
        for mixin in folding:
            mixin.fold(layer)
            for name in mixin.added:
                delattr(layer, name)
        if folding:
            layer.__class__ = _stack(plain, mixins[len(folding) :])
    return model


def penalties(model: nn.Module) -> dict[str, torch.Tensor]:
    """What the mixins add to the training loss, by name: the sum over all layers that carry one with a penalty."""
    found = {}
    for layer in model.modules():
        for mixin in _unstack(type(layer))[1]:
            if hasattr(mixin, "penalty"):
                name, value = mixin.penalty(layer)
                found[name] = found.get(name, 0) + value
    return found


def carried(model: nn.Module) -> set[str]:
    """Dotted names of the parameters that mixins hold: after a fold, those of the mixins that stayed."""
    return {
        f"{prefix}.{name}".removeprefix(".")
        for prefix, layer in model.named_modules()
        for mixin in _unstack(type(layer))[1]
        for name in mixin.added
        if isinstance(getattr(layer, name), nn.Parameter)
    }


@contextmanager
def computing_as(classes: dict[nn.Module, type]):
    """Each layer of a model with the class given for it, for as long as the block runs; then with its own again."""
    own = {layer: type(layer) for layer in classes}
    try:
        for layer, cls in classes.items():
            layer.__class__ = cls
        yield
    finally:
        for layer, cls in own.items():
            layer.__class__ = cls


def _unstack(cls: type) -> tuple[type, list[type]]:
    """The plain class under an adapted one, and its mixins, innermost first."""
    mixins = []
    while "adapted" in vars(cls):
        mixin, cls = vars(cls)["adapted"]
        mixins.insert(0, mixin)
    return cls, mixins


def _stack(plain: type, mixins: list[type]) -> type:
    """The adapted class of the mixins, innermost first, over a plain one."""
    return reduce(lambda cls, mixin: adapted_class(mixin, cls), mixins, plain)


def _reduce(layer: nn.Module, protocol: int) -> tuple:
    """pickle finds classes by name, and an adapted class has none in any module: store what it was made of."""
    return _blank, _unstack(type(layer)), layer.__getstate__()


def _blank(plain: type, mixins: list[type]) -> nn.Module:
    """An instance of the adapted class without its state, which pickle and deepcopy fill in."""
    cls = _stack(plain, mixins)
    return cls.__new__(cls)


def _search(pattern: str, names: Iterable[str], noun: str) -> list[str]:
    """The names that the regex finds, or a ValueError that shows the names there are, indices as *."""
    try:
        found = [name for name in names if re.search(pattern, name)]
    except re.error as error:
        raise ValueError(f"pattern {pattern!r} is not a regular expression: {error}") from None
    if not found:
        kinds = list(dict.fromkeys(re.sub(r"\b\d+\b", "*", name) for name in names))
        has = ", ".join(kinds[:12]) + (f" and {len(kinds) - 12} more" if len(kinds) > 12 else "")
        raise ValueError(f"matched no {noun}: pattern {pattern!r}, the model has {has or f'no such {noun} at all'}")
    return found

"""Specialise layers of a built model in place, choose what trains, and merge the result back to plain layers.

A method is a mixin whose `forward` is its paper's equation. `specialize` changes the class of one existing layer, so
the backbone does not know about it: the same object, the same state-dict keys, a new forward.

    layer.__class__:    nn.Linear  -- specialize(layer, LoRA) -->  LoRALinear(LoRA, nn.Linear)  -- merge -->  nn.Linear
    layer(x):           W x + b                                    W x + b + s B A x                          W' x + b

In the new class `super().forward(x)` of the mixin is the forward of the layer underneath. A mixin has
    setup(self, **options)   adds its parameters beside weight and bias, all with requires_grad True
    forward(self, x)         the equation, with super().forward(x) as the layer underneath
    merge(self)              writes its effect into weight and bias of the layer underneath, a plain one at that time
    added                    the names of the attributes that setup made; `merge(model)` removes them
    innermost                optional, True: the mixin goes under older ones, because its equation needs the plain W
    kept                     optional: buffers, a frozen start for one, that go into an adapter file beside what trains
    through_super            optional, True: forward reads the weights by super().forward alone (recipes/models/store)
    auxiliary_loss(self)     optional: (name in the log, term of the training loss)
    rate_factors(self)       optional: {name in added: factor on the learning rate}
A mixin whose effect no weights can hold, such as a nonlinear path, has no `merge` and stays on its layer.
`requires_grad` is the only record of what trains: optimizer, EMA and adapter file all read it.
"""

import re
from collections.abc import Iterable, Iterator
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
    """Give one layer the adapted class of the mixin, LoRA + Linear -> LoRALinear, and let `setup` add its parameters.

    Newer mixins go over older ones; one that is `innermost` goes under them. Raises ValueError if the layer already
    carries the mixin (merge the first one, if it merges, before the second) or another that is `innermost`.
    """
    if mixin in type(layer).mro():
        carrier = f"{type(layer).__name__}({layer.extra_repr()})"
        raise ValueError(
            f"{carrier} already carries {mixin.__name__}, and takes it once: merge the first to add a second"
        )
    plain, mixins = unstack(type(layer))
    inner = [one for one in (mixin, *mixins) if getattr(one, "innermost", False)]
    if len(inner) > 1:
        names = " and ".join(one.__name__ for one in inner)
        raise ValueError(f"{names} both need the plain weights of {layer}: merge one first, or give them other layers")
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
    """requires_grad False everywhere. Each layer keeps the names of its parameters that were frozen before.

    Those of the first call count, tables like DiT's pos_embed; they are the layer's attribute `built_frozen`, which is
    copied and pickled with it.
    """
    for layer in model.modules():
        if not hasattr(layer, "built_frozen"):
            own = layer.named_parameters(recurse=False)
            layer.built_frozen = frozenset(name for name, p in own if not p.requires_grad)
    model.requires_grad_(False)


def frozen_names(model: nn.Module) -> set[str]:
    """Dotted names of the parameters that were frozen before the first `freeze`: no method trains these."""
    return {
        f"{prefix}.{name}".removeprefix(".")
        for prefix, layer in model.named_modules()
        for name in getattr(layer, "built_frozen", ())
    }


def unfreeze(model: nn.Module, pattern: str) -> None:
    """Train the parameters whose dotted name the regex finds, beside those that train already. ValueError if none."""
    parameters = dict(model.named_parameters())
    for name in _search(pattern, parameters, "parameter"):
        parameters[name].requires_grad_(True)


def trainable_parameters(model: nn.Module) -> dict[str, nn.Parameter]:
    """Dotted name -> parameter, of those that train."""
    return {name: p for name, p in model.named_parameters() if p.requires_grad}


def counts(model: nn.Module) -> tuple[int, int]:
    """(numbers that train, all numbers in the model's parameters)."""
    return sum(p.numel() for p in trainable_parameters(model).values()), sum(p.numel() for p in model.parameters())


@torch.no_grad()
def merge(model: nn.Module, keep: type | tuple[type, ...] = ()) -> nn.Module:
    """Write the mixins into the weights of their layers and give these their plain classes back, with the same output.

    The innermost first, as the forward nests: gamma over LoRA is gamma (W + s B A), LoRA over gamma is gamma W + s B A.
    A mixin without `merge` stays, and so does every newer one over it: LoRA over y = h + f(h) is h + f(h) + s B A x,
    and with s B A in W, f would see it. keep: a layer with this mixin stays as it is. Plain parameters keep their
    requires_grad. In place; returns model.
    """
    for layer in model.modules():
        plain, mixins = unstack(type(layer))
        merging = [] if isinstance(layer, keep) else list(takewhile(lambda mixin: hasattr(mixin, "merge"), mixins))
        for mixin in merging:
            mixin.merge(layer)
            for name in mixin.added:
                delattr(layer, name)
        if merging:
            layer.__class__ = _stack(plain, mixins[len(merging) :])
    return model


def auxiliary_losses(model: nn.Module) -> dict[str, torch.Tensor]:
    """What the mixins add to the training loss: name -> the sum of `auxiliary_loss` over the layers that have one."""
    losses = {}
    for layer in model.modules():
        for mixin in unstack(type(layer))[1]:
            if hasattr(mixin, "auxiliary_loss"):
                name, value = mixin.auxiliary_loss(layer)
                losses[name] = losses.get(name, 0) + value
    return losses


def adapter_parameters(model: nn.Module) -> set[str]:
    """Dotted names of the parameters that mixins hold: after a merge, those of the mixins that stayed."""
    return {
        f"{prefix}.{name}".removeprefix(".")
        for prefix, layer in model.named_modules()
        for mixin in unstack(type(layer))[1]
        for name in mixin.added
        if isinstance(getattr(layer, name), nn.Parameter)
    }


def layer_classes(model: nn.Module) -> dict[nn.Module, type]:
    """The class of each layer. Taken before `attach`, it is what `disable_adapters` goes back to."""
    return {layer: type(layer) for layer in model.modules()}


def check_detachable(model: nn.Module) -> None:
    """Raises ValueError if weights of the model itself train: `disable_adapters` would not give the old model."""
    inside = sorted(trainable_parameters(model).keys() - adapter_parameters(model))
    if inside:
        raise ValueError(
            f"only what stands beside the weights, such as lora, can be switched off, and {len(inside)} of these "
            f"parameters train in place, {inside[0]} for one"
        )


@contextmanager
def disable_adapters(classes: dict[nn.Module, type]) -> Iterator[None]:
    """Inside the context the layers compute as the classes say, by `layer_classes`; after it with their adapters again.

    So a student and its teacher are one model in memory: a mixin changes the class of its layer and none of its
    weights, so that the classes from before `attach` are the model from before.
    """
    adapted = {layer: type(layer) for layer in classes}
    try:
        for layer, cls in classes.items():
            layer.__class__ = cls
        yield
    finally:
        for layer, cls in adapted.items():
            layer.__class__ = cls


def unstack(cls: type) -> tuple[type, list[type]]:
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
    return _blank, unstack(type(layer)), layer.__getstate__()


def _blank(plain: type, mixins: list[type]) -> nn.Module:
    """An instance of the adapted class without its state, which pickle and deepcopy fill in."""
    cls = _stack(plain, mixins)
    return cls.__new__(cls)


def _search(pattern: str, names: Iterable[str], noun: str) -> list[str]:
    """The names that the regex finds, or a ValueError that shows the names there are, indices as *."""
    try:
        matches = [name for name in names if re.search(pattern, name)]
    except re.error as error:
        raise ValueError(f"pattern {pattern!r} is not a regular expression: {error}") from None
    if not matches:
        kinds = list(dict.fromkeys(re.sub(r"\b\d+\b", "*", name) for name in names))
        has = ", ".join(kinds[:12]) + (f" and {len(kinds) - 12} more" if len(kinds) > 12 else "")
        raise ValueError(f"matched no {noun}: pattern {pattern!r}, the model has {has or f'no such {noun} at all'}")
    return matches

"""Fine-tuning methods, attached to a built model by a spec such as `lora:rank=8,alpha=16`.

`text.lora:rank=4` is for the part of the model called text alone. adapters/methods/ holds the methods and their names,
core.py what they are made of (specialize a layer, merge it back), spec.py the reading of a spec.
"""

import warnings
from collections.abc import Sequence

import torch
from torch import nn

from adapters.core import (
    adapter_parameters,
    auxiliary_losses,
    check_detachable,
    counts,
    disable_adapters,
    freeze,
    layer_classes,
    merge,
    trainable_parameters,
)
from adapters.declared import kept_buffers, rate_factors
from adapters.methods import METHODS
from adapters.methods.bnn import sampled
from adapters.spec import parse, part_of, split

__all__ = [
    "METHODS",
    "adapter_parameters",
    "attach",
    "auxiliary_losses",
    "check_detachable",
    "counts",
    "disable_adapters",
    "kept_buffers",
    "layer_classes",
    "merge",
    "parse",
    "rate_factors",
    "sampled",
    "split",
    "trainable_parameters",
]


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
    for part, name, options in calls:
        try:
            METHODS[name](part, generator, **options)
        except ValueError as error:
            raise ValueError(f"adapter {name}: {error}") from error
    return model


RENAMED = {
    "fold": "merge",
    "trained": "trainable_parameters",
    "carried": "adapter_parameters",
    "penalties": "auxiliary_losses",
}  # old names, kept for one release


def __getattr__(name: str) -> object:
    if name not in RENAMED:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    warnings.warn(f"{__name__}.{name} is called {__name__}.{RENAMED[name]} now", FutureWarning, stacklevel=2)
    return globals()[RENAMED[name]]

"""What mixins declare besides their equations: buffers of an adapter file, and learning rates of their own."""

import torch
from torch import nn

from adapters.core import unstack


def kept_buffers(model: nn.Module) -> dict[str, torch.Tensor]:
    """Dotted name -> buffer, of what the mixins that train keep beside it."""
    return {
        f"{prefix}.{name}".removeprefix("."): layer.get_buffer(name)
        for prefix, layer in model.named_modules()
        for mixin in unstack(type(layer))[1]
        if any(getattr(getattr(layer, name), "requires_grad", False) for name in mixin.added)
        for name in getattr(mixin, "kept", ())
    }


def rate_factors(model: nn.Module) -> dict[str, float]:
    """Dotted name -> factor on the learning rate, of the parameters to which a mixin gives one."""
    return {
        f"{prefix}.{name}".removeprefix("."): factor
        for prefix, layer in model.named_modules()
        for mixin in unstack(type(layer))[1]
        if hasattr(mixin, "rate_factors")
        for name, factor in mixin.rate_factors(layer).items()
    }

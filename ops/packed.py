"""Frozen weights in the order in which a CPU multiplies by them, for sampling.

oneDNN, torch's library for this, multiplies by blocks of a weight, and torch's layers cut W into them anew in every
call: little beside a product with many rows, much beside one with few, like those of a UNet's lowest level. Cut once, W
needs no more memory than before. The numbers are those of the plain layer within the rounding of their precision.

torch has no public call for this; its own compiler makes these two. Where they are missing, layers stay as they are.
"""

import torch
from torch import Tensor, nn

from ops.doubled import DoubledConv2d, summable
from ops.machine.pages import release

ONEDNN = torch.ops.mkldnn
NOTHING_AFTER = ("none", [], "")  # what oneDNN does with the result: the function, its numbers, its kind
GELU_AFTER = ("gelu", [], "tanh")


def available() -> bool:
    """Whether this torch has oneDNN and its two calls."""
    return torch.backends.mkldnn.is_available() and all(
        hasattr(ONEDNN, name) for name in ("_linear_pointwise", "_convolution_pointwise")
    )


class PackedLinear(nn.Module):
    """y = W x + b, or gelu(W x + b) by its tanh approximation, without a gradient."""

    def __init__(self, layer: nn.Linear):
        super().__init__()
        self.after = NOTHING_AFTER
        self.in_features, self.dtype, self.bias = layer.in_features, layer.weight.dtype, layer.bias
        self.packed = ONEDNN._reorder_linear_weight(layer.weight.detach())

    def forward(self, x: Tensor) -> Tensor:
        """x (..., in) -> (..., out), of the weight's type."""
        return ONEDNN._linear_pointwise(x.to(self.dtype), self.packed, self.bias, *self.after)


class PackedConv2d(nn.Module):
    """y = W * x + b without a gradient, in memory (B, H, W, C).

    W is packed for the first x, as if it were alone: the numbers of an image do not depend on which batch came first.
    """

    def __init__(self, layer: nn.Conv2d):
        super().__init__()
        self.dtype, self.bias = layer.weight.dtype, layer.bias
        self.how = [list(layer.padding), list(layer.stride), list(layer.dilation), layer.groups]
        self.weight, self.packed = layer.weight.detach(), None

    def forward(self, x: Tensor) -> Tensor:
        """x (B, C, H, W) -> (B, C', H', W'), of the weight's type."""
        x = x.to(self.dtype, memory_format=torch.channels_last)
        if self.packed is None:
            self.packed = ONEDNN._reorder_convolution_weight(self.weight, *self.how, [1, *x.shape[1:]])
            self.weight = None
            release()
        return ONEDNN._convolution_pointwise(x, self.packed, self.bias, *self.how, *NOTHING_AFTER)


PACKED = {nn.Linear: PackedLinear, nn.Conv2d: PackedConv2d}


@torch.no_grad()
def pack(model: nn.Module) -> nn.Module:
    """The plain Linears and Conv2ds of a frozen model on a CPU are replaced by packed ones, in place; returns it.

    Layers with a mixin, that train, on a GPU or padded by other than zeros stay as they are. What is packed has no
    gradient and no `weight`: a model to sample with, and not one to save.
    """
    if not available():
        return model
    # names, and no list of layers: the plain W of one is gone when the next is packed
    for owner in [module for module in model.modules() if type(module) not in PACKED]:
        for name in [name for name, _ in owner.named_children()]:
            layer = owner.get_submodule(name)
            if type(layer) in PACKED and packs(layer):
                setattr(owner, name, packed(layer, doubling=name == "upsample"))
        join_gelu(owner)
    release()
    return model


def packed(layer: nn.Linear | nn.Conv2d, doubling: bool) -> nn.Module:
    """The layer packed; doubling: its input's pixels are doubled first (ops/doubled.py)."""
    if doubling and summable(layer) and layer.weight.dtype == torch.bfloat16:
        return DoubledConv2d(layer)
    return PACKED[type(layer)](layer)


def join_gelu(mlp: nn.Module) -> None:
    """act(fc1(x)) of a packed MLP by one call, where act is GELU by its tanh approximation.

    A call of its own would read and write all hidden numbers once more.
    """
    linear, act = getattr(mlp, "fc1", None), getattr(mlp, "act", None)
    if isinstance(linear, PackedLinear) and isinstance(act, nn.GELU) and act.approximate == "tanh":
        linear.after, mlp.act = GELU_AFTER, nn.Identity()


def packs(layer: nn.Linear | nn.Conv2d) -> bool:
    """Whether a plain layer is one that is packed."""
    padded = getattr(layer, "padding_mode", "zeros") != "zeros" or isinstance(getattr(layer, "padding", ()), str)
    return layer.weight.device.type == "cpu" and not layer.weight.requires_grad and not padded

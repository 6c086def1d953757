"""A backward pass that keeps little: cheap functions are computed twice, and what a gradient does not read is dropped.

    recomputed(f, x)        f(x); its inputs are kept and f runs again in the backward pass, with the same numbers
    by_shape(layer, x)      layer(x); where the layer's weight is frozen, the shape of x is kept and not x
    CastTwice               a Linear or Conv2d that trains; its float32 weight is kept and not the bfloat16 copy of it
    with_gradient(x, norm)  x, as a GroupNorm that trains must find it

Norm, modulation, GELU and softmax cost memory and next to no arithmetic, so that they are worth computing twice; no
matrix product of a layer is. A gradient with respect to the input of a frozen convolution reads no value of that input.
"""

from collections.abc import Callable
from functools import partial

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.autograd.graph import saved_tensors_hooks


class _Recomputed(torch.autograd.Function):
    """function(*tensors), which keeps the tensors alone. own: parameters that the function reads by itself."""

    @staticmethod
    def forward(
        ctx: torch.autograd.function.FunctionCtx, function: Callable, own: tuple[nn.Parameter, ...], *tensors: Tensor
    ) -> Tensor:
        kind, tensors = tensors[0].device.type, tensors[: len(tensors) - len(own)]
        ctx.function, ctx.own = function, own
        ctx.autocast = (kind, torch.get_autocast_dtype(kind), torch.is_autocast_enabled(kind))
        ctx.save_for_backward(*tensors)
        return function(*tensors)

    @staticmethod
    def backward(ctx: torch.autograd.function.FunctionCtx, grad: Tensor) -> tuple[Tensor | None, ...]:
        needed = ctx.needs_input_grad[2:]
        given = [tensor.detach().requires_grad_(wanted) for tensor, wanted in zip(ctx.saved_tensors, needed)]
        with torch.enable_grad(), torch.autocast(*ctx.autocast):
            out = ctx.function(*given)
        wanted = [tensor for tensor in (*given, *ctx.own) if tensor.requires_grad]
        grads = iter(torch.autograd.grad(out, wanted, grad))
        return None, None, *(next(grads) if needs else None for needs in needed)


def recomputed(function: Callable[..., Tensor], *tensors: Tensor, own: tuple[nn.Parameter, ...] = ()) -> Tensor:
    """function(*tensors), computed again in the backward pass. The function draws no randomness.

    tensors: all that it reads and the gradient shall reach, but for `own`, parameters that train and that it reads by
    itself.
    """
    if torch.compiler.is_compiling() or not torch.is_grad_enabled():
        return function(*tensors)
    if not any(tensor.requires_grad for tensor in (*tensors, *own)):
        return function(*tensors)
    return _Recomputed.apply(function, own, *tensors, *own)


def normed(norm: nn.Module, after: Callable[..., Tensor], x: Tensor, *others: Tensor) -> Tensor:
    """after(norm(x), *others), of which x and the others are kept. norm: a LayerNorm or a GroupNorm.

    A norm with another class, an adapted one, may draw numbers: it is computed once.
    """
    x = with_gradient(x, norm)
    if type(norm) not in (nn.LayerNorm, nn.GroupNorm):
        return after(norm(x), *others)
    own = tuple(parameter for parameter in norm.parameters() if parameter.requires_grad)
    return recomputed(lambda x, *others: after(norm(x), *others), x, *others, own=own)


def by_shape(layer: nn.Conv2d, x: Tensor) -> Tensor:
    """layer(x), without x in memory until the backward pass where the layer is a plain one with a frozen weight."""
    if type(layer) is not nn.Conv2d or layer.weight.requires_grad or not x.requires_grad:
        return layer(x)
    if torch.compiler.is_compiling() or not torch.is_grad_enabled():
        return layer(x)
    with dropped(x, partial(torch.empty_strided, dtype=x.dtype, device=x.device)):
        return layer(x)


def dropped(tensor: Tensor, again: Callable[[tuple, tuple], Tensor]) -> saved_tensors_hooks:
    """A block in which autograd does not keep `tensor`: the backward pass takes again(shape, stride) in its place."""
    address = tensor.data_ptr()

    def pack(tensor: Tensor) -> Tensor | tuple:
        return (tensor.shape, tensor.stride()) if tensor.data_ptr() == address else tensor

    def unpack(packed: Tensor | tuple) -> Tensor:
        return packed if isinstance(packed, Tensor) else again(*packed)

    return saved_tensors_hooks(pack, unpack)


class CastTwice:
    """A mixin over a Linear or Conv2d whose weight trains: under autocast y = bf16(W) x + b, and bf16(W) is not kept.

    Autocast holds the copy of every weight until the backward pass has read it: half of the model once more. Here it is
    made again for the gradient of x, with the same bits. The optimizer may change the weight as soon as its gradient is
    there: every use of it has been differentiated then.
    """

    added = ()

    def setup(self) -> None:
        """Nothing is added."""

    def forward(self, x: Tensor) -> Tensor:
        """As the layer."""
        kind = x.device.type
        if torch.compiler.is_compiling() or not torch.is_grad_enabled() or not torch.is_autocast_enabled(kind):
            return super().forward(x)
        dtype = torch.get_autocast_dtype(kind)
        weight = self.weight.to(dtype)
        multiply = F.linear if isinstance(self, nn.Linear) else self._conv_forward
        with dropped(weight, lambda *layout: self.weight.detach().to(dtype).as_strided(*layout)):
            return multiply(x, weight, self.bias)

    def merge(self) -> None:
        """Nothing has an effect."""


def with_gradient(x: Tensor, norm: nn.Module) -> Tensor:
    """x (B, C, H, W), which asks for a gradient where the weights of the GroupNorm that reads it do; the same values.

    On a CPU the backward pass of a trained GroupNorm crashes (torch 2.13) if the gradient of a channels-last x is not
    computed.
    """
    if x.requires_grad or not torch.is_grad_enabled() or torch.compiler.is_compiling():
        return x
    return x.detach().requires_grad_() if any(weight.requires_grad for weight in norm.parameters()) else x

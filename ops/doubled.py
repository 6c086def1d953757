"""A 3x3 convolution of an image whose pixels were doubled, with less than half of the arithmetic.

Nearest-neighbour upsampling shows every pixel twice in each direction, so that a 3x3 window sees no more than 2x2
different ones: an output is a 2x2 convolution of the small image, by sums of the weights. In one dimension, with the
weights (w0, w1, w2) and the small image s,

    y[2i]     = w0 s[i - 1] + (w1 + w2) s[i]
    y[2i + 1] = (w0 + w1) s[i] + w2 s[i + 1]

and in two dimensions there are four such convolutions, 16 products where there were 36.
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ops.layout import in_bfloat16


def doubled(conv: nn.Module, x: Tensor) -> Tensor:
    """conv(x with every pixel doubled in each direction): x (B, C, H, W) -> (B, C', 2H, 2W).

    By sums of the weights for sampling in bfloat16 on a CPU, within its rounding; else as it stands.
    """
    if summable(conv) and in_bfloat16(x) and not torch.is_grad_enabled():
        conv = DoubledConv2d(conv)
    if isinstance(conv, DoubledConv2d):
        return conv(x)
    return conv(F.interpolate(x, scale_factor=2.0, mode="nearest"))


def summable(conv: nn.Module) -> bool:
    """Whether this is a plain 3x3 Conv2d on a CPU, padded by one zero on each side."""
    if type(conv) is not nn.Conv2d or conv.weight.device.type != "cpu" or torch.compiler.is_compiling():
        return False
    how = conv.kernel_size, conv.stride, conv.padding, conv.dilation, conv.groups, conv.padding_mode
    return how == ((3, 3), (1, 1), (1, 1), (1, 1), 1, "zeros")


class DoubledConv2d(nn.Module):
    """The four convolutions in place of a summable one, in bfloat16, without a gradient."""

    def __init__(self, layer: nn.Conv2d):
        super().__init__()
        rows = [summed(layer.weight.detach().float(), dim=2, odd=odd) for odd in (False, True)]
        sums = [[summed(row, dim=3, odd=odd) for odd in (False, True)] for row in rows]  # (C', C, 2, 2) each
        self.weights = [[w.to(torch.bfloat16, memory_format=torch.channels_last) for w in row] for row in sums]
        self.bias = None if layer.bias is None else layer.bias.detach().to(torch.bfloat16)

    def forward(self, x: Tensor) -> Tensor:
        """x (B, C, H, W) -> (B, C', 2H, 2W)."""
        x = x.to(torch.bfloat16, memory_format=torch.channels_last)
        (b, _, h, w), out = x.shape, self.weights[0][0].shape[0]
        y = x.new_empty(b, 2 * h, 2 * w, out).permute(0, 3, 1, 2)  # channels last
        for i, row in enumerate(self.weights):
            for j, weight in enumerate(row):
                y[:, :, i::2, j::2] = F.conv2d(x, weight, self.bias, padding=1)[:, :, i : i + h, j : j + w]
        return y


def summed(w: Tensor, dim: int, odd: bool) -> Tensor:
    """(w0, w1 + w2) for even rows or columns, (w0 + w1, w2) for odd ones."""
    w0, w1, w2 = w.unbind(dim)
    return torch.stack([w0 + w1, w2] if odd else [w0, w1 + w2], dim)

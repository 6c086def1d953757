"""Further input channels of a network's first layer: the mask, and the latent of the photograph without it."""

import torch
from torch import Tensor, nn


def with_hint(x: Tensor, hint: Tensor | None) -> Tensor:
    """[x, hint] (B, 2C + 1, H, W) of x (B, C, H, W) and hints (b, 1 + C, H, W), which are repeated to B = k b.

    Raises ValueError without a hint.
    """
    if hint is None:
        raise ValueError("a model for inpainting reads a photograph and its mask, and was given none")
    return torch.cat([x, hint.repeat(len(x) // len(hint) or 1, 1, 1, 1)], dim=1)


def widened(conv: nn.Conv2d, inputs: int) -> nn.Conv2d:
    """The convolution with `inputs` input channels: zeros behind the weights that it has, so the same output."""
    wide = nn.Conv2d(inputs, conv.out_channels, conv.kernel_size, conv.stride, conv.padding).to(conv.weight)
    with torch.no_grad():
        wide.weight.zero_()
        wide.weight[:, : conv.in_channels] = conv.weight
        wide.bias.copy_(conv.bias)
    return wide

"""The order of an image's numbers in memory: channels last where convolutions are faster so."""

import torch
from torch import Tensor


def channels_last(x: Tensor) -> Tensor:
    """x (B, C, H, W), the channels of a pixel side by side where convolutions will run in bfloat16; the same values.

    What follows keeps the order, and a transformer's rows of tokens are then a view. In float32 convolutions are no
    faster so: `python -m bench --rows unet,vae_decode` times both networks.
    """
    return x.contiguous(memory_format=torch.channels_last) if in_bfloat16(x) else x


def in_bfloat16(x: Tensor) -> bool:
    """Whether a convolution of x computes in bfloat16."""
    kind = x.device.type
    lowered = torch.is_autocast_enabled(kind) and torch.get_autocast_dtype(kind) == torch.bfloat16
    return lowered or x.dtype == torch.bfloat16

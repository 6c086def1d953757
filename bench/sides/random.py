"""Random weights for both sides, made fast: a million numbers N(0, 0.02), again and again."""

import torch
from torch import nn


@torch.no_grad()
def filled(model: nn.Module) -> nn.Module:
    """The model with these weights; where it had no storage yet its buffers are 0."""
    empty = next(model.parameters()).is_meta
    model = model.to_empty(device="cpu") if empty else model
    numbers = 0.02 * torch.randn(2**20, generator=torch.Generator().manual_seed(0))
    for parameter in model.parameters():
        for part in parameter.view(-1).split(len(numbers)):
            part.copy_(numbers[: len(part)])
    for buffer in model.buffers() if empty else ():
        buffer.zero_()
    return model.eval()

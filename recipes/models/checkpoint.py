"""Blocks that keep their input and nothing else, and are computed again for the gradient (Chen et al. 2016).

    y = block(x);   in the backward pass y = block(x) once more, then its gradient          arXiv 1604.06174

The memory of training is then that of one block and an input for each, for about a third more time.
"""

import torch
from torch import nn
from torch.utils.checkpoint import checkpoint

from adapters.clock import at_its_time
from adapters.core import specialize
from dit.block import Block
from unet.block import TimeResBlock, TransformerBlock

BLOCKS = (Block, TimeResBlock, TransformerBlock)


class Checkpointed:
    """A mixin over a block: y = block(x), computed twice, with the same random numbers. Merging removes it."""

    added = ()

    def setup(self) -> None:
        """Nothing is added."""

    def forward(self, *args: torch.Tensor) -> torch.Tensor:
        """As the block."""
        if not torch.is_grad_enabled():
            return super().forward(*args)
        return checkpoint(at_its_time(self, super().forward), *args, use_reentrant=False)

    def merge(self) -> None:
        """Nothing has an effect."""


def checkpoint_blocks(model: nn.Module) -> None:
    """Every block of a DiT or a UNet keeps its input alone."""
    for block in blocks_of(model):
        specialize(block, Checkpointed)


def blocks_of(model: nn.Module) -> list[nn.Module]:
    """The blocks of a DiT, and the residual and the transformer blocks of a UNet."""
    return [layer for layer in model.modules() if isinstance(layer, BLOCKS)]

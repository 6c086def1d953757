"""How a layer learns the timestep, which only its network's embedder hears: the embedder tells a clock, layers read it.

    t (B,) ---[ told | timestep embedder ]---> emb
                 |
              clock.t  <---  layers of the same network, in the same forward

A network stays as it is: the embedder gets a mixin, as a layer does. Whatever calls the network, in training, in
sampling with guidance (which stacks samples and their times), beside a ControlNet, tells it its times in this way.
"""

from collections.abc import Callable

import torch
from torch import nn

from adapters.core import specialize

EMBEDDERS = ("t_embedder", "time_embed")  # their names in a DiT and in a UNet: forward(t, dtype)


class Clock:
    """t (B,): what the network heard last, None before its first forward. A copy has heard nothing.

    flow: whether it hears the share of the data, 1 - s from 0 (noise) to 1, and not steps of the 1000-step chain.
    """

    def __init__(self, flow: bool = False):
        self.flow, self.t = flow, None

    def __getstate__(self) -> dict:
        return {"flow": self.flow, "t": None}

    def times(self) -> torch.Tensor:
        """t (B,). Raises ValueError in a layer that was copied out of its network, whose embedder tells it nothing."""
        if self.t is None:
            raise ValueError(
                "a layer whose rank follows the noise was copied out of its network, and hears no timestep"
            )
        return self.t


class Told:
    """A timestep embedder that tells its clock t. It changes no output; merging leaves it, for who reads the clock."""

    added = ("clock",)

    def setup(self, clock: Clock) -> None:
        self.clock = clock

    def forward(self, t: torch.Tensor, dtype: torch.dtype) -> torch.Tensor:
        """t (B,) -> (B, D), as the embedder."""
        self.clock.t = t
        return super().forward(t, dtype)


def embedders(model: nn.Module) -> dict[str, nn.Module]:
    """{start of the names of a network's layers: its timestep embedder} for each network of the model that has one."""
    parted = {name: name.rpartition(".") for name, _ in model.named_modules()}
    return {
        parent + dot: model.get_submodule(name) for name, (parent, dot, last) in parted.items() if last in EMBEDDERS
    }


def clock_of(embedder: nn.Module, flow: bool) -> Clock:
    """The clock that the embedder tells, from now on if it had none."""
    if not isinstance(embedder, Told):
        specialize(embedder, Told, clock=Clock(flow))
    return embedder.clock


def at_its_time(block: nn.Module, forward: Callable) -> Callable:
    """`forward` of a block, which may run later once more, with the clocks of its layers as they are now."""
    times = [(layer.clock, layer.clock.t) for layer in block.modules() if hasattr(layer, "clock")]
    if not times:
        return forward

    def again(*args: torch.Tensor) -> torch.Tensor:
        for clock, t in times:
            clock.t = t
        return forward(*args)

    return again

"""Tensors of a published file -> a network of the metrics. Every name is used or ignored, every shape is equal."""

from collections.abc import Callable
from pathlib import Path

import torch
from torch import Tensor, nn

from weights.layouts.exchange import Layout, fill
from weights.layouts.kinds import NoInit
from weights.models.load import check_finite


def build_network(
    make: Callable[[], nn.Module], tensors: dict[str, Tensor], layout: Layout, source: str | Path
) -> nn.Module:
    """The network of make() with these tensors: in eval mode, frozen, in float32. A float32 file stays memory-mapped.

    Raises ValueError, with `source`, for tensors that do not fit, NaN and infinity.
    """
    with torch.device("meta"), NoInit():
        network = make()
    shapes = {name: tuple(tensor.shape) for name, tensor in network.state_dict().items()}
    state = {name: tensor.float() for name, tensor in fill(tensors, shapes, layout, None, source).items()}
    check_finite(state, source)
    network.load_state_dict(state, assign=True)
    return network.eval().requires_grad_(False)

"""The tensors of a published file -> a network of the metrics: every name used or passed over, every shape equal."""

from collections.abc import Callable

import torch
from torch import Tensor, nn

from weights.configs import NoDraws
from weights.layouts import Layout, fill
from weights.load import check_finite


def filled(network: Callable[[], nn.Module], tensors: dict[str, Tensor], layout: Layout, source) -> nn.Module:
    """The network in eval mode, frozen and in float32; what is float32 in the file stays a map of it.

    network() makes one of the right shape. Raises ValueError for all that does not fit, and for NaN and infinity.
    """
    with torch.device("meta"), NoDraws():
        made = network()
    shapes = {name: tuple(tensor.shape) for name, tensor in made.state_dict().items()}
    state = {name: tensor.float() for name, tensor in fill(tensors, shapes, layout, None, source).items()}
    check_finite(state, source)
    made.load_state_dict(state, assign=True)
    return made.eval().requires_grad_(False)

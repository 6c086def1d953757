"""One model over several processes: each keeps a part of every weight, and of its gradient, moments and average.

    process p of P keeps rows p n .. (p + 1) n - 1 of a tensor of N rows,    n = ceil(N / P)

The weights of a layer are gathered before it computes and given up after it; the mean of its gradients goes to the
processes row by row. This is the third stage of ZeRO (Rajbhandari et al. 2020, arXiv 1910.02054), by `fully_shard` of
torch (Zhao et al. 2023, arXiv 2304.11277). For samples and files, made by one process, the model is whole.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import torch
import torch.distributed as dist
from torch import Tensor, nn

import adapters
from ops.machine import process


def check_shard(specs: Sequence[str]) -> None:
    """ValueError where there is nothing to divide, or nothing to divide it over. specs: of the adapters."""
    if process.count() == 1:
        raise ValueError("--shard divides a model over the processes that torchrun starts, and this is one alone")
    others = [spec for spec in specs if adapters.split(spec)[1] != "full"]
    if others or not specs:
        found = " + ".join(others) or "a recipe without --adapter"
        raise ValueError(
            f"--shard divides what --adapter full trains, found {found}: without --shard it is the same run"
        )


def divide(model: nn.Module) -> None:
    """Divide every parameter, in place. Those of a layer of a list are gathered together, the rest with the model."""
    from torch.distributed.fsdp import fully_shard

    mesh = dist.init_device_mesh(next(model.parameters()).device.type, (process.count(),))
    lists = [layers for layers in model.modules() if isinstance(layers, nn.ModuleList)]
    for layer in (layer for layers in reversed(lists) for layer in layers):  # the inner lists first
        fully_shard(layer, mesh=mesh)
    fully_shard(model, mesh=mesh)
    model._get_fsdp_state()._lazy_init()  # else the root is what computes first, and a text encoder may
    for layer in model.modules():
        layer._state_dict_pre_hooks.clear()  # torch's own, which divide a model that is `whole` to be saved
    torch.set_autocast_cache_enabled(False)  # it keeps the bfloat16 copies of all weights to the end of a forward pass


def is_divided(tensor: Tensor) -> bool:
    """Whether this process keeps a part of it alone: it is torch's DTensor, whose module is slow to load."""
    return hasattr(tensor, "to_local")


@contextmanager
def whole(model: nn.Module) -> Iterator[None]:
    """Every process has all of the weights while the block runs, in which each may compute alone and save."""
    layers = [layer for layer in model.modules() if hasattr(layer, "unshard")]
    for layer in layers:
        layer.set_reshard_after_forward(False, recurse=False)
        layer.unshard()
    try:
        yield
    finally:
        for layer in layers:
            layer.reshard()
            layer.set_reshard_after_forward(layer is not model, recurse=False)


def gathered(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    """The tensors, each divided one whole and on the CPU; {} in every process but the first."""
    kept = {}
    for name, tensor in tensors.items():
        found = tensor.full_tensor() if is_divided(tensor) else tensor  # all processes take part, in the same order
        if process.is_first():
            kept[name] = found.cpu() if is_divided(tensor) else tensor
    return kept


def own(tensor: Tensor, like: Tensor) -> Tensor:
    """A copy of a whole tensor where `like` is, and of this process's rows alone where that is divided."""
    if not is_divided(like) or tensor.shape != like.shape:
        return tensor.to(like.device, copy=True)
    rows, part = -(-len(tensor) // process.count()), torch.empty_like(like)
    part.to_local().copy_(tensor[process.number() * rows :][:rows])
    return part

"""Several processes, one run: each takes some micro-batches of every step, and all have the mean of the gradients.

    g = 1/A sum_a g_a,    process p of P computes the micro-batches a = p, p + P, p + 2 P, ...

Noise and images of micro-batch a are those of (seed, step, a), whoever computes it, so that any number of processes
takes the same steps but for the order of the sum. Replicas: torch's DistributedDataParallel (Li et al. 2020,
arXiv 2006.15704).
"""

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext

from torch import Generator, Tensor, nn
from torch.nn.parallel import DistributedDataParallel

import adapters
from config.training import Loop
from ops.machine import process
from training.step.shard import check_shard, divide

Loss = Callable[[dict[str, Tensor], Generator, float], tuple[Tensor, dict]]


class Objective(nn.Module):
    """The loss of a job and of its adapters as one module, whose forward the processes can follow."""

    def __init__(self, model: nn.Module, loss: Loss):
        super().__init__()
        self.model, self.loss = model, loss

    def forward(self, *batch: object) -> tuple[Tensor, dict]:
        """`loss_of` the batch."""
        return loss_of(self.model, self.loss, *batch)


def objective(model: nn.Module, loss: Loss, shard: bool = False) -> Loss:
    """The loss itself, or with more processes one whose backward pass ends with the mean of all their gradients.

    shard: the model is divided over them, and takes the mean itself.
    """
    if shard:
        divide(model)
    if shard or process.count() == 1:
        return loss
    return DistributedDataParallel(Objective(model, loss), gradient_as_bucket_view=True)


def loss_of(
    model: nn.Module, loss: Loss, batch: dict[str, Tensor], generator: Generator, progress: float
) -> tuple[Tensor, dict]:
    """(scalar, numbers for the log) of a batch, with the terms that the model's adapters add."""
    value, own = loss(batch, generator, progress)
    if not isinstance(loss, DistributedDataParallel):
        for name, extra in adapters.auxiliary_losses(model).items():
            value, own = value + extra, own | {name: extra.detach()}
    return value, own


def own_part(options: Loop) -> range:
    """The micro-batches of a step that this process computes. ValueError where they do not come out even."""
    count = process.count()
    if options.accumulate % count:
        images = options.batch * options.accumulate
        raise ValueError(
            f"{count} processes share the micro-batches of a step, so --accumulate must be a multiple of {count}, "
            f"found {options.accumulate}: for as many images, --batch {max(1, images // count)} --accumulate {count}"
        )
    return range(process.number(), options.accumulate, count)


def check_shared(options: Loop, values: dict) -> None:
    """ValueError for a step or a model that the processes cannot share. values: the settings of the run by name."""
    own_part(options)
    if values.get("shard"):
        check_shard(values.get("adapter", []))


def until_last(whole: Loss, last: bool) -> AbstractContextManager:
    """A context in which gradients are added up here and not yet sent, but for those of the last micro-batch."""
    return nullcontext() if last or not isinstance(whole, DistributedDataParallel) else whole.no_sync()


def summed(loss: float, numbers: dict[str, float]) -> tuple[float, dict[str, float]]:
    """The loss and the numbers of all processes, added up."""
    loss, *values = process.total([loss, *numbers.values()])
    return loss, dict(zip(numbers, values))

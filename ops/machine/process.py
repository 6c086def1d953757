"""What a process is among those that torchrun started: its number, how many there are, what they tell each other.

Without torchrun there is one process, number 0, and everything here is what one alone would do.
"""

import contextlib
import gc
import importlib
import os
import sys
from collections.abc import Callable, Iterator
from datetime import timedelta
from typing import Any

import torch
import torch.distributed as dist

PATIENCE = timedelta(days=1)  # what one process may do while the others wait: draw samples, encode a folder
HOLDERS = ("torch.distributed.nn", "torch.distributed.fsdp")  # whose functions have the group as a default value


@contextlib.contextmanager
def processes() -> Iterator[None]:
    """The processes of torchrun know each other while the block runs. Only the first one prints to stdout.

    OSError where another of them ended.
    """
    if int(os.environ.get("WORLD_SIZE", 1)) == 1:
        yield
        return
    backend = "gloo"
    if torch.cuda.is_available():
        torch.cuda.set_device(int(os.environ["LOCAL_RANK"]))
        backend = "cpu:gloo,cuda:nccl"
    for module in HOLDERS:
        importlib.import_module(module)  # now, while there is no group: loaded later they would keep it for good
    store, rank, world = next(dist.rendezvous("env://", timeout=PATIENCE))
    store = dist.PrefixStore(os.environ.get("TORCHELASTIC_RESTART_COUNT", "0"), store)  # no address of an earlier start
    dist.init_process_group(backend, timeout=PATIENCE, store=store, rank=rank, world_size=world)
    try:
        with open(os.devnull, "w") as nowhere, contextlib.redirect_stdout(sys.stdout if is_first() else nowhere):
            yield
    except RuntimeError as error:
        if "by peer" in str(error):
            raise OSError(f"process {rank} ends, for another process of this run did") from error
        raise
    finally:
        dist.destroy_process_group()
        let_go()


def let_go() -> None:
    """Drop what torch remembers of the group, so that its threads end now: one of them that is still busy when the
    interpreter ends aborts the process, after all is done, and torchrun calls the whole run failed."""
    from torch.distributed.device_mesh import DeviceMesh  # a torch without torch.distributed has none

    gc.collect()
    for held in gc.get_objects():
        if type(held) is DeviceMesh:  # of a divided model: torch's caches keep them, and they the group
            getattr(held, "_pg_registry", {}).clear()


def number() -> int:
    """The number of this process, from 0."""
    return dist.get_rank() if dist.is_initialized() else 0


def count() -> int:
    """How many processes there are."""
    return dist.get_world_size() if dist.is_initialized() else 1


def is_first() -> bool:
    """Whether this process is the one that writes files."""
    return number() == 0


def restarted() -> bool:
    """Whether torchrun started the processes anew, after one of them had ended."""
    return int(os.environ.get("TORCHELASTIC_RESTART_COUNT", 0)) > 0


def wait() -> None:
    """Go on when all processes are here."""
    highest(0)


def highest(value: int) -> int:
    """The highest of the values of all processes."""
    return int(reduced([value], dist.ReduceOp.MAX)[0])


def total(values: list[float]) -> list[float]:
    """The sums of the values over all processes, in float64."""
    return reduced(values, dist.ReduceOp.SUM)


def reduced(values: list[float], how: Any) -> list[float]:
    """Each of the values as all processes have it after `how`."""
    if count() == 1:
        return values
    numbers = torch.tensor(values, dtype=torch.float64)  # on the CPU, so that gloo carries it
    dist.all_reduce(numbers, how)
    return numbers.tolist()


def by_first(make: Callable[[], Any]) -> Any:
    """What make() returns in the first process, once all are here, in every process. An error of it ends all, and the
    first says it."""
    if count() == 1:
        return make()
    wait()
    told, error = [None, False], None
    if is_first():
        try:
            told = [make(), True]
        except (ValueError, OSError) as found:
            error = found
    dist.broadcast_object_list(told)
    if error:
        raise error
    if not told[1]:
        sys.exit(1)
    return told[0]

"""Where a program computes and in which precision: the device, bfloat16 autocast and the peak of memory."""

import os
import sys
from typing import NamedTuple

import torch

try:
    import resource
except ImportError:  # Windows has none
    resource = None

PRECISIONS = ("auto", "fp32", "bf16")


class Compute(NamedTuple):
    """Where to compute and how: what every part of a run that calls a network is told."""

    device: torch.device
    precision: str  # of PRECISIONS

    def autocast(self) -> torch.autocast:
        """The module's `autocast` here."""
        return autocast(self.precision, self.device)

    @property
    def dtype(self) -> torch.dtype:
        """What matrix products run in."""
        return torch.bfloat16 if bf16(self.precision, self.device) else torch.float32


def choose_device(name: str) -> torch.device:
    """ "auto" -> cuda, mps or cpu, the first that is available; any other name -> the device of that name. Each of the
    processes that torchrun starts on a machine has a GPU of its own.

    Raises ValueError for a name that torch does not know, and for a GPU that is not there.
    """
    if name == "auto":
        if torch.cuda.is_available():
            own = os.environ.get("LOCAL_RANK")
            return torch.device("cuda" if own is None else f"cuda:{own}")
        return torch.device("mps" if torch.backends.mps.is_available() else "cpu")
    try:
        device = torch.device(name)
    except RuntimeError:
        raise ValueError(f"device must be auto, cpu, mps, cuda or cuda:0, cuda:1, ..., found {name!r}") from None
    there = {"cuda": torch.cuda.device_count(), "mps": int(torch.backends.mps.is_available())}.get(device.type, 1)
    if (device.index or 0) >= there:
        raise ValueError(
            f"device {name}: torch sees {there or 'no'} {device.type} device{'s' if there > 1 else ''} here"
        )
    return device


def autocast(precision: str, device: torch.device) -> torch.autocast:
    """A context in which matrix products run in bfloat16 where `bf16(precision, device)` says so, else in float32."""
    return torch.autocast(device.type, torch.bfloat16, enabled=bf16(precision, device))


def bf16(precision: str, device: torch.device) -> bool:
    """Whether to compute in bfloat16: "bf16" yes, "fp32" no, "auto" where the device multiplies in it.

    Raises ValueError for another precision.
    """
    if precision not in PRECISIONS:
        raise ValueError(f"precision must be {', '.join(PRECISIONS[:-1])} or {PRECISIONS[-1]}, found {precision!r}")
    if precision != "auto":
        return precision == "bf16"
    if device.type == "cuda":
        return torch.cuda.is_bf16_supported()
    return device.type == "cpu" and has_cpu_bf16()


def has_cpu_bf16() -> bool:
    """Whether this processor has bfloat16 matrix instructions; without them autocast on a CPU is slow."""
    capability = getattr(torch.cpu, "_is_avx512_bf16_supported", lambda: False)
    return bool(capability())


def peak_gib(device: torch.device) -> float | None:
    """The most memory that this process has held so far, in GiB: torch's on a GPU, else the resident set.

    None on Windows, which does not report it.
    """
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device) / 2**30
    if resource is None:
        return None
    unit = 1 if sys.platform == "darwin" else 1024  # macOS counts bytes, Linux KiB
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit / 2**30

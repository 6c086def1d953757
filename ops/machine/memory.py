"""Out of memory, on any device, as one sentence that says what was held and what would take less."""

from collections.abc import Iterator
from contextlib import contextmanager

import torch

from ops.device import peak_gib

SIGNS = ("out of memory", "bad_alloc", "can't allocate memory", "cannot allocate memory", "not enough memory")


def is_out_of_memory(error: BaseException) -> bool:
    """Whether the error says that memory ran out: Python's, NumPy's, torch's on any device, C++'s."""
    if isinstance(error, MemoryError | torch.cuda.OutOfMemoryError):
        return True
    return isinstance(error, RuntimeError) and any(sign in str(error).lower() for sign in SIGNS)


@contextmanager
def memory_in_a_sentence(levers: str) -> Iterator[None]:
    """In place of an error of memory in the block a ValueError with the peak, and `levers`: what would take less."""
    try:
        yield
    except (MemoryError, RuntimeError) as error:
        if not is_out_of_memory(error):
            raise
        kind = "cuda" if isinstance(error, torch.cuda.OutOfMemoryError) or "cuda" in str(error).lower() else "cpu"
        peak = peak_gib(torch.device(kind))
        held = "" if peak is None else f", {peak:.1f} GiB at the peak"
        where = "the GPU" if kind == "cuda" else "this process"
        raise ValueError(f"out of memory on {where}{held}: {levers}") from None

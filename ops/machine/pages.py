"""Give memory back to the system: the pages of a file that were read, and what this process freed."""

import ctypes
import mmap
import sys
from pathlib import Path

from torch import Tensor

MAPS, DONTNEED = Path("/proc/self/maps"), 4


def forget(tensors: list[Tensor]) -> None:
    """Drop the pages in memory under tensors that are maps of files, of which nothing was written and nobody reads on.

    A later read brings the pages back from the file. Tensors in ordinary memory are left alone, and every tensor on a
    system that is not Linux.
    """
    if not MAPS.exists():
        return
    lines = [line.split() for line in MAPS.read_text().splitlines()]
    files = [tuple(int(end, 16) for end in words[0].split("-")) for words in lines if words[4] != "0"]
    libc = ctypes.CDLL(None, use_errno=True)
    for tensor in tensors:
        if tensor.device.type != "cpu":
            continue
        begin = -(-tensor.data_ptr() // mmap.PAGESIZE) * mmap.PAGESIZE  # whole pages inside
        end = (tensor.data_ptr() + tensor.nbytes) // mmap.PAGESIZE * mmap.PAGESIZE
        if begin < end and any(first <= begin and end <= last for first, last in files):
            libc.madvise(ctypes.c_void_p(begin), ctypes.c_size_t(end - begin), DONTNEED)


def release() -> None:
    """Give freed memory back: glibc keeps what lies between tensors that live on, up to another whole model."""
    libc = ctypes.CDLL(None) if sys.platform == "linux" else None
    if hasattr(libc, "malloc_trim"):
        libc.malloc_trim(ctypes.c_size_t(0))

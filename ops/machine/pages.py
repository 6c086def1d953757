"""Give memory back to the system: the pages of a file that were read, and what this process freed."""

import ctypes
import mmap
import sys
from bisect import bisect_right
from collections.abc import Sequence
from pathlib import Path

from torch import Tensor

MAPS, DONTNEED = Path("/proc/self/maps"), 4
LIBC = ctypes.CDLL(None) if sys.platform == "linux" else None


def file_maps() -> list[tuple[int, int]]:
    """First and last address of every map of a file, in order; none on a system that is not Linux."""
    listed = MAPS.read_bytes() if MAPS.exists() else b""  # paths are bytes of any kind
    lines = [line.split(maxsplit=5) for line in listed.split(b"\n") if line]
    return [tuple(int(end, 16) for end in words[0].split(b"-")) for words in lines if words[4] != b"0"]


def forget(tensor: Tensor, maps: Sequence[tuple[int, int]]) -> None:
    """Drop the pages in memory under a tensor that is a map of a file, whose numbers were copied or are not needed.

    A later read brings the pages back from the file. A tensor in ordinary memory is left alone. maps: of `file_maps`,
    read when the tensor was there already; what came later could lie where a file had been mapped.
    """
    if not maps or tensor.device.type != "cpu":
        return
    begin = -(-tensor.data_ptr() // mmap.PAGESIZE) * mmap.PAGESIZE  # whole pages inside
    end = (tensor.data_ptr() + tensor.nbytes) // mmap.PAGESIZE * mmap.PAGESIZE
    if begin >= end:
        return
    first, last = maps[bisect_right(maps, begin, key=lambda ends: ends[0]) - 1]
    if first <= begin and end <= last:
        LIBC.madvise(ctypes.c_void_p(begin), ctypes.c_size_t(end - begin), DONTNEED)


def release() -> None:
    """Give freed memory back: glibc keeps what lies between tensors that live on, up to another whole model."""
    if hasattr(LIBC, "malloc_trim"):
        LIBC.malloc_trim(ctypes.c_size_t(0))

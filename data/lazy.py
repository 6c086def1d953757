"""Images that are not held: an array whose rows are made anew, from their files, whenever they are asked for.

A small set is decoded once and kept. What takes more than HELD bytes is decoded, used and forgotten, and where all of
it is gone through, by as many processes as there are processors. Texts of a large set are bytes in one row.
"""

import contextlib
import hashlib
import os
import signal
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from itertools import islice

import numpy as np

HELD = 2**25  # bytes of a set of images that is kept in memory
MANY = 1_000  # rows for which it pays to start processes
BLOCK = 2048  # rows that are asked of them at once
CHUNK = 8  # rows in one message


class Lazy:
    """N rows of one shape and type, such as images (N, S, S, 3) or masks (N, S, S), which are made when asked for.

    It answers len, shape, dtype, rows[i], rows[array or slice] and iteration as an array does.
    """

    def __init__(self, make: Callable, arguments: Callable[[int], tuple], shape: tuple[int, ...], dtype: type):
        """Row i is make(*arguments(i)); make is a function of a module, so that other processes find it."""
        self.make, self.arguments, self.shape, self.dtype = make, arguments, shape, np.dtype(dtype)
        self._digests = np.empty((len(self), 32), np.uint8)
        self.start()

    def start(self) -> None:
        """Begin the digests anew."""
        self.seen, self._total = 0, hashlib.sha256(f"{self.nbytes} ".encode())

    def __len__(self) -> int:
        return self.shape[0]

    @property
    def nbytes(self) -> int:
        """Bytes of all rows, were they held."""
        return int(np.prod(self.shape)) * self.dtype.itemsize

    def __getitem__(self, key: int | slice | np.ndarray) -> np.ndarray:
        index = np.arange(len(self))[key]
        if index.ndim == 0:
            return self.make(*self.arguments(int(index)))
        out = np.empty((len(index), *self.shape[1:]), self.dtype)
        for at, i in enumerate(index.tolist()):
            out[at] = self.make(*self.arguments(i))
        return out

    def __iter__(self) -> Iterator[np.ndarray]:
        with workers(len(self)) as pool:
            yield from in_order(self, range(len(self)), pool)

    def __array__(self, dtype: type | None = None, copy: bool | None = None) -> np.ndarray:
        return self[:].astype(dtype or self.dtype, copy=False)

    def every(self, n: int) -> "Lazy":
        """One in n of the rows."""
        return Lazy(self.make, lambda i: self.arguments(i * n), (-(-len(self) // n), *self.shape[1:]), self.dtype)

    def note(self, row: np.ndarray) -> None:
        """Add the next row to the digests."""
        row = np.ascontiguousarray(row)
        self._digests[self.seen] = np.frombuffer(hashlib.sha256(row).digest(), np.uint8)
        self._total.update(row)
        self.seen += 1

    @property
    def digests(self) -> np.ndarray:
        """SHA-256 of every row's bytes, (N, 32) uint8; makes all rows, unless all were noted."""
        if self.seen < len(self):
            self.start()
            for row in self:
                self.note(row)
        return self._digests

    @property
    def digest(self) -> str:
        """SHA-256 of the number of all bytes, a space, and all bytes."""
        return self._total.hexdigest() if len(self.digests) else ""


class Strings(Sequence):
    """Texts in one row of UTF-8 bytes: a hundred thousand paths are 6 MB, and no hundred thousand objects."""

    def __init__(self, texts: Iterable[str]):
        content, ends = bytearray(), [0]
        for text in texts:
            content += text.encode("utf-8", "surrogateescape")
            ends.append(len(content))
        self.content, self.ends = bytes(content), np.array(ends)

    def __len__(self) -> int:
        return len(self.ends) - 1

    def __getitem__(self, i: int | slice) -> str | list[str]:
        if isinstance(i, slice):
            return [self[at] for at in range(*i.indices(len(self)))]
        i = range(len(self))[i]
        return self.content[self.ends[i] : self.ends[i + 1]].decode("utf-8", "surrogateescape")

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Sequence) and list(self) == list(other)


def row_digests(rows: Lazy | np.ndarray) -> np.ndarray:
    """SHA-256 of every row's bytes, (N, 32) uint8."""
    if isinstance(rows, Lazy):
        return rows.digests
    each = (hashlib.sha256(np.ascontiguousarray(row)).digest() for row in rows)
    return np.frombuffer(b"".join(each), np.uint8).reshape(-1, 32)


def blocks(rows: Lazy | np.ndarray) -> Iterator[np.ndarray]:
    """All rows in order, some at a time."""
    return (rows[first : first + BLOCK] for first in range(0, len(rows), BLOCK))


def in_order(rows: Lazy | np.ndarray, part: range, pool: ProcessPoolExecutor | None = None) -> Iterator[np.ndarray]:
    """The rows of a range, one after the other, each made in the pool if there is one."""
    if not isinstance(rows, Lazy):
        return (rows[i] for i in part)
    return made(rows.make, (rows.arguments(i) for i in part), pool)


def made(make: Callable, arguments: Iterable[tuple], pool: ProcessPoolExecutor | None) -> Iterator:
    """make(*each) of all arguments in order. OSError where a worker process was ended."""
    if pool is None:
        yield from (make(*each) for each in arguments)
        return
    arguments = iter(arguments)
    while block := list(islice(arguments, BLOCK)):
        try:
            yield from pool.map(make, *zip(*block), chunksize=CHUNK)
        except BrokenProcessPool:
            raise OSError("a process that decodes images was ended from outside, perhaps for lack of memory") from None


@contextlib.contextmanager
def workers(count: int) -> Iterator[ProcessPoolExecutor | None]:
    """Processes to make `count` rows in, for as long as the block runs; None where this process is as quick."""
    number = processors()
    if count < MANY or number < 2:
        yield None
        return
    with ProcessPoolExecutor(number, initializer=_serve, initargs=(os.getpid(),)) as pool:
        yield pool


def processors() -> int:
    """Processors for this process: its share where torchrun started several on this machine."""
    able = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return max(1, able // int(os.environ.get("LOCAL_WORLD_SIZE", 1)))


def _serve(parent: int) -> None:
    """In a worker: leave signals to the parent, and do not outlive it."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_DFL)

    def watch() -> None:
        while os.getppid() == parent:
            time.sleep(1)
        os._exit(1)

    threading.Thread(target=watch, daemon=True).start()

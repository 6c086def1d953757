"""Arrays on disk in shards: files of consecutive rows, each named after what its numbers depend on.

A shard is a safetensors file of a few arrays with as many rows. It is whole or absent, and its checksum finds damage.
There is no index to keep: the name of a shard follows from the contents that it was made of, so that a process that
was interrupted, and any other process, finds the shards that are there and makes those that are not.
"""

import contextlib
import hashlib
import json
import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import BinaryIO

import numpy as np
import torch
from torch import Tensor

from data.output.atomic import remove_abandoned, replacing

try:
    import fcntl
except ImportError:  # Windows has none: two processes may make the same shard there, and the second replaces the first
    fcntl = None

CHUNK = 2**20  # bytes that are read at once
NAMES = {torch.float32: "F32", torch.float16: "F16"}
NUMPY = {torch.float32: np.float32, torch.float16: np.float16}


class Rows:
    """One array (N, ...) of N rows in shards of `size` rows: rows[index, place] reads what it is asked for.

    A shard is mapped for as long as rows are copied from it, so that no memory grows with what was read.
    """

    def __init__(self, files: Sequence[Path], array: str, size: int, shape: tuple[int, ...], dtype: torch.dtype):
        """array: its name in the files. shape: with the number of all rows."""
        self.files, self.array, self.size, self.shape, self.dtype = files, array, size, torch.Size(shape), dtype

    def __len__(self) -> int:
        return self.shape[0]

    def __getitem__(self, key: tuple | slice | int | Tensor) -> Tensor:
        """As of a tensor: the rows `key`, or of key = (rows, places) in each row the place that belongs to it."""
        index, place = key if isinstance(key, tuple) else (key, slice(None))
        wanted = np.arange(len(self))[np.asarray(index) if isinstance(index, Tensor) else index]
        rows, each = wanted.reshape(-1), isinstance(place, Tensor)
        places = place.expand(wanted.shape).reshape(-1).numpy() if each else place
        below = self.shape[2:] if each or isinstance(place, int) else self.shape[1:]
        out = np.empty((len(rows), *below), NUMPY[self.dtype])
        for shard in np.unique(rows // self.size):
            here = rows // self.size == shard
            out[here] = mapped(self.files[shard], self.array)[rows[here] % self.size, places[here] if each else places]
        return torch.from_numpy(out.reshape(*wanted.shape, *below))


def mapped(path: Path, array: str) -> np.ndarray:
    """An array of a shard, mapped and not read."""
    with open(path, "rb") as file:
        header, start = read_header(file)
    about = header[array]
    dtype = next(dtype for dtype, name in NAMES.items() if name == about["dtype"])
    return np.memmap(path, NUMPY[dtype], "r", start + about["data_offsets"][0], tuple(about["shape"]))


def read_header(file: BinaryIO) -> tuple[dict, int]:
    """(header, where the data begins) of a safetensors file. ValueError if it has none."""
    length = int.from_bytes(file.read(8), "little")
    if not 0 < length <= CHUNK:
        raise ValueError("it is not a safetensors file")
    return json.loads(file.read(length)), 8 + length


def write_shard(path: Path, arrays: dict[str, Tensor], name: str) -> None:
    """Write contiguous arrays on the CPU under the content address `name`, in one atomic step and without a copy."""
    header, end = {"__metadata__": {"name": name, "sha256": digest(arrays.values())}}, 0
    for key, value in arrays.items():
        about = {"dtype": NAMES[value.dtype], "shape": list(value.shape)}
        header[key], end = about | {"data_offsets": [end, end + value.nbytes]}, end + value.nbytes
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    with replacing(path) as file:
        file.write(len(text).to_bytes(8, "little") + text)
        for value in arrays.values():
            file.write(value.numpy().data)


def digest(arrays: Iterator[Tensor]) -> str:
    """SHA-256 of the bytes of contiguous arrays."""
    total = hashlib.sha256()
    for value in arrays:
        total.update(value.numpy().data)
    return total.hexdigest()


def check_shard(path: Path, name: str, arrays: Sequence[str]) -> None:
    """ValueError for a shard of another name, and for any damage, one flipped bit included."""
    total = hashlib.sha256()
    try:
        with open(path, "rb") as file:
            header, start = read_header(file)
            metadata, places = header["__metadata__"], [header[key]["data_offsets"] for key in arrays]
            for begin, end in places:
                file.seek(start + begin)
                for at in range(begin, end, CHUNK):
                    total.update(file.read(min(CHUNK, end - at)))
            size = os.fstat(file.fileno()).st_size
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise ValueError(f"it has no header with {', '.join(arrays)}") from error
    if metadata.get("name") != name:
        raise ValueError("it was written for other contents")
    if metadata.get("sha256") != total.hexdigest() or size != start + max(end for _, end in places):
        raise ValueError("its checksum does not match")


@contextlib.contextmanager
def claimed(path: Path) -> Iterator[bool]:
    """Whether this process is the one to make the file, for as long as the block runs. The death of a process ends its
    claim."""
    path.parent.mkdir(parents=True, exist_ok=True)
    lock = path.with_name(f".{path.name}.lock")
    with open(lock, "a") as file:
        try:
            if fcntl:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            yield False
            return
        try:
            yield True
        finally:
            lock.unlink(missing_ok=True)


def remove_dead_claims(folder: str | Path) -> None:
    """Remove the locks that processes left behind which died while they held them."""
    remove_abandoned(Path(folder).glob(".*.safetensors.lock"))

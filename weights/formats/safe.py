"""The safetensors container: read as a map of the file, written tensor by tensor.

    file = u64 length N, little-endian | N bytes of JSON | data
    JSON = {"name": {"dtype": "F32", "shape": [2, 3], "data_offsets": [begin, end]}, ..., "__metadata__": {str: str}}

Offsets count from the end of the JSON, and the tensors tile the data: no gap, no overlap, no tail (the format is
described at github.com/huggingface/safetensors). The library's `safe_open` reads: it checks all of this before a single
weight is used. The writer here streams, so that a model larger than memory can be converted.
"""

import contextlib
import json
import math
import struct
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from border import checked, shown
from data.output.atomic import replacing
from weights.formats.pickled import AGAIN

HEADER_LIMIT = 100_000_000  # bytes of JSON, the library's own limit
DTYPES = {
    "F64": torch.float64,
    "F32": torch.float32,
    "F16": torch.float16,
    "BF16": torch.bfloat16,
    "F8_E4M3": torch.float8_e4m3fn,
    "F8_E5M2": torch.float8_e5m2,
    "I64": torch.int64,
    "I32": torch.int32,
    "I16": torch.int16,
    "I8": torch.int8,
    "U64": torch.uint64,
    "U32": torch.uint32,
    "U16": torch.uint16,
    "U8": torch.uint8,
    "BOOL": torch.bool,
}
NAMES = {dtype: name for name, dtype in DTYPES.items()}


def read(path: str | Path) -> tuple[dict[str, Tensor], dict[str, str]]:
    """The tensors by name, and the metadata (strings) of the header.

    The tensors are private maps of the file: nothing is read until it is used, and writing to a tensor never changes
    the file. Raises ValueError for every way in which a file is damaged.
    """
    with opened(path) as file:
        tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118, it is no dict
        # only other writers leave tensors at odd addresses
        aligned = {name: t if t.data_ptr() % t.dtype.itemsize == 0 else t.clone() for name, t in tensors.items()}
        return aligned, file.metadata() or {}


def read_metadata(path: str | Path) -> dict[str, str]:
    """The metadata of the header alone. Raises ValueError as `read`."""
    with opened(path) as file:
        return file.metadata() or {}


@contextlib.contextmanager
def opened(path: str | Path) -> Iterator:
    """The file as the library opens it; its errors become a ValueError that says what is damaged."""
    try:
        with safe_open(path, framework="pt") as file:
            yield file
    except SafetensorError as error:
        raise ValueError(f"{path}: {damage(Path(path)) or error}") from None


def damage(path: Path) -> str:
    """What is wrong with a file that the library refuses: the tensor's name, what was expected, what was found.

    "" where the checks here find nothing.
    """
    size = path.stat().st_size
    with open(path, "rb") as file:
        first = file.read(8)
        length = struct.unpack("<Q", first)[0] if len(first) == 8 else 0
        if length > HEADER_LIMIT:
            return f"safetensors header of {length:,} bytes, over the limit of {HEADER_LIMIT:,}"
        if not 2 <= length <= size - 8:
            return f"cut off inside its header: expected at least {8 + length:,} bytes, found {size:,}; {AGAIN}"
        text = file.read(length)
    try:
        table = json.loads(text.decode("utf-8"), object_pairs_hook=unique)
    except (ValueError, RecursionError) as error:
        return f"the safetensors header is not valid JSON: {error}"
    if not isinstance(table, dict):
        return f"the header must be a JSON object, found {type(table).__name__}"
    metadata = table.pop("__metadata__", {})
    if not isinstance(metadata, dict) or not all(isinstance(value, str) for value in metadata.values()):
        return "__metadata__ must map strings to strings"
    wrong = next(filter(None, (entry_damage(name, entry) for name, entry in table.items())), None)
    return wrong or tiling_damage({name: entry["data_offsets"] for name, entry in table.items()}, 8 + length, size)


def unique(pairs: list[tuple]) -> dict:
    """The object of these pairs. ValueError for a name that occurs twice, where json itself would keep the last."""
    table = dict(pairs)
    if len(table) != len(pairs):
        names = [name for name, _ in pairs]
        raise ValueError(f"the name {next(name for name in names if names.count(name) > 1)!r} occurs twice")
    return table


def entry_damage(name: str, entry: object) -> str | None:
    """What contradicts what in one tensor's entry of the header, None where nothing does."""
    try:
        dtype, shape, (begin, end) = entry["dtype"], tuple(entry["shape"]), entry["data_offsets"]
    except (TypeError, KeyError, ValueError):
        return f"tensor {name!r} needs dtype, shape and two data_offsets, found {shown(entry)}"
    if not isinstance(dtype, str) or dtype not in DTYPES:
        return f"tensor {name!r} has dtype {dtype!r}, known are {', '.join(DTYPES)}"
    if not all(type(number) is int and 0 <= number < 2**63 for number in (*shape, begin, end)):
        return f"tensor {name!r} has a shape or offset that is no natural number: {shown(entry)}"
    needed = math.prod(shape) * DTYPES[dtype].itemsize
    if end - begin == needed:
        return None
    held = f"its offsets {begin:,}..{end:,} hold {end - begin:,}"
    return f"tensor {name!r}, {dtype} of shape {list(shape)}, needs {needed:,} bytes, {held}"


def tiling_damage(offsets: dict[str, list[int]], start: int, size: int) -> str:
    """Where the offsets do not tile the data, which begins at byte `start` of `size`; "" where they do."""
    position = 0
    for name, (begin, end) in sorted(offsets.items(), key=lambda item: item[1]):
        if begin != position:
            what = "overlaps the tensor before it" if begin < position else "leaves a hole before it"
            return f"tensor {name!r} {what}: expected to begin at {position:,}, found {begin:,}"
        position = end
    if size == start + position:
        return ""
    cause = AGAIN if size < start + position else "something was appended to it"
    return f"expected {start + position:,} bytes by its header, found {size:,}; {cause}"


def write(
    path: str | Path, tensors: dict[str, Tensor], metadata: dict[str, str], dtype: torch.dtype | None = None
) -> None:
    """Write the file in one atomic step; `dtype` converts the floating tensors on the way, one at a time.

    Tensors may share memory (each is written out in full), lie on any device and have any strides.
    """
    kept = {name: dtype if dtype and tensor.is_floating_point() else tensor.dtype for name, tensor in tensors.items()}
    order = sorted(tensors, key=lambda name: (-kept[name].itemsize, name))  # wide types first: all stay aligned
    table, position = {"__metadata__": dict(metadata)}, 0
    for name in order:
        end = position + tensors[name].numel() * kept[name].itemsize
        table[name] = {"dtype": NAMES[kept[name]], "shape": list(tensors[name].shape), "data_offsets": [position, end]}
        position = end
    text = json.dumps(table, ensure_ascii=False, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    if len(text) > HEADER_LIMIT:  # what is written must be readable
        raise ValueError(
            f"{path}: a header of {len(text):,} bytes, over the limit of {HEADER_LIMIT:,}, nothing was written"
        )
    with replacing(path) as file:
        file.write(struct.pack("<Q", len(text)) + text)
        for name in order:
            values = tensors[name].detach().to("cpu", kept[name]).contiguous().reshape(-1)
            file.write(np.from_dlpack(values.view(torch.uint8)))  # torch never frees what numpy() has shown


def graft_header(metadata: dict, source: str | Path) -> dict:
    """What this package wrote into the metadata of a file of its own (`graft`, JSON); {} for any other file."""
    try:
        header = json.loads(metadata.get("graft", "{}"))
    except (ValueError, RecursionError, TypeError):
        header = None
    if not isinstance(header, dict):
        raise ValueError(f"{source}: the header's `graft` entry is not a JSON object: {str(metadata['graft'])[:60]!r}")
    checked(header.get("kind"), str | None, f"{source}: kind in its header")
    return header

"""The safetensors container, read as a map of the file and written tensor by tensor.

    file = u64 length N, little-endian | N bytes of JSON | data
    JSON = {"name": {"dtype": "F32", "shape": [2, 3], "data_offsets": [begin, end]}, ..., "__metadata__": {str: str}}

Offsets count from the end of the JSON, and the tensors tile the data: no gap, no overlap, no tail (the format is
described at github.com/huggingface/safetensors). Reading checks all of it, so that a file that is cut short is refused
before a single weight is used.
"""

import json
import math
import os
import struct
from pathlib import Path

import torch
from torch import Tensor

from data.output.atomic import replacing

HEADER_LIMIT = 100_000_000  # bytes of JSON, the reference reader's own limit
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


def read(path) -> tuple[dict[str, Tensor], dict[str, str]]:
    """-> ({name: tensor}, metadata). The tensors are pieces of one private map of the file: nothing is read until it is
    used, and writing to a tensor never changes the file. Raises ValueError for every way in which a file is not whole.
    """
    path = Path(path)
    entries, metadata, start = header(path)
    storage = torch.UntypedStorage.from_file(str(path), False, os.path.getsize(path))

    def tensor(dtype, shape, begin, end):
        # a storage of its own for each: a copy or a pickle of one tensor must not drag the whole file along
        piece = storage[start + begin : start + end]
        if (start + begin) % dtype.itemsize:
            piece = piece.clone()  # only other writers leave tensors at odd addresses
        return torch.empty(0, dtype=dtype).set_(piece).reshape(shape)

    return {name: tensor(*entry) for name, entry in entries.items()}, metadata


def header(path) -> tuple[dict[str, tuple], dict[str, str], int]:
    """-> ({name: (dtype, shape, begin, end)}, metadata, first byte of the data), checked against the file's size."""
    path = Path(path)
    size = os.path.getsize(path)
    with open(path, "rb") as file:
        first = file.read(8)
        length = struct.unpack("<Q", first)[0] if len(first) == 8 else 0
        if length > HEADER_LIMIT:
            raise ValueError(f"{path}: safetensors header of {length:,} bytes, over the limit of {HEADER_LIMIT:,}")
        if not 2 <= length <= size - 8:
            raise ValueError(
                f"{path}: cut off inside its header: expected at least {8 + length:,} bytes, found {size:,}; "
                "the download is incomplete, delete the file and fetch it again"
            )
        text = file.read(length)
    try:
        table = json.loads(text.decode("utf-8"), object_pairs_hook=unique)
    except (UnicodeDecodeError, json.JSONDecodeError, RecursionError, ValueError) as error:
        raise ValueError(f"{path}: the safetensors header is not valid JSON: {error}") from None
    if not isinstance(table, dict):
        raise ValueError(f"{path}: the header must be a JSON object, found {type(table).__name__}")
    metadata = table.pop("__metadata__", {})
    if not isinstance(metadata, dict) or not all(isinstance(value, str) for value in metadata.values()):
        raise ValueError(f"{path}: __metadata__ must map strings to strings")
    entries = {name: checked_entry(path, name, entry) for name, entry in table.items()}
    check_tiling(path, entries, size, 8 + length)
    return entries, metadata, 8 + length


def unique(pairs):
    """json's hook for objects: a name that occurs twice is an error, where json itself would keep the last."""
    found = dict(pairs)
    if len(found) != len(pairs):
        names = [name for name, _ in pairs]
        raise ValueError(f"the name {next(name for name in names if names.count(name) > 1)!r} occurs twice")
    return found


def checked_entry(path, name, entry):
    """(dtype, shape, begin, end) of one tensor, or ValueError if the header's numbers contradict each other."""
    try:
        dtype, shape, (begin, end) = entry["dtype"], tuple(entry["shape"]), entry["data_offsets"]
    except (TypeError, KeyError, ValueError):
        raise ValueError(f"{path}: tensor {name!r} needs dtype, shape and two data_offsets, found {entry!r}") from None
    if not isinstance(dtype, str) or dtype not in DTYPES:
        raise ValueError(f"{path}: tensor {name!r} has dtype {dtype!r}, known are {', '.join(DTYPES)}")
    if not all(type(number) is int and 0 <= number < 2**63 for number in (*shape, begin, end)):
        raise ValueError(f"{path}: tensor {name!r} has a shape or offset that is no natural number: {entry!r}")
    needed = math.prod(shape) * DTYPES[dtype].itemsize
    if end - begin != needed:
        raise ValueError(
            f"{path}: tensor {name!r}, {dtype} of shape {list(shape)}, needs {needed:,} bytes, "
            f"its offsets {begin:,}..{end:,} hold {end - begin:,}"
        )
    return DTYPES[dtype], shape, begin, end


def check_tiling(path, entries, size, start):
    """Every byte of the data belongs to exactly one tensor."""
    position = 0
    for name, (_, _, begin, end) in sorted(entries.items(), key=lambda item: item[1][2:]):
        if begin != position:
            what = "overlaps the tensor before it" if begin < position else "leaves a hole before it"
            raise ValueError(f"{path}: tensor {name!r} {what}: expected to begin at {position:,}, found {begin:,}")
        position = end
    if size != start + position:
        cause = "the download is incomplete, delete the file and fetch it again"
        cause = cause if size < start + position else "something was appended to it"
        raise ValueError(f"{path}: expected {start + position:,} bytes by its header, found {size:,}; {cause}")


def write(path, tensors: dict[str, Tensor], metadata: dict[str, str], dtype: torch.dtype | None = None) -> None:
    """Writes the file in one atomic step; `dtype` converts the floating tensors on the way, one at a time.

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
    with replacing(path) as file:
        file.write(struct.pack("<Q", len(text)) + text)
        for name in order:
            values = tensors[name].detach().to("cpu", kept[name]).contiguous().reshape(-1)
            file.write(values.view(torch.uint8).numpy())

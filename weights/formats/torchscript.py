"""The tensors of TorchScript archives, such as OpenAI's CLIP files. No line of the program in them is run.

    data.pkl   the modules, as objects of classes of the program: {attribute: tensor, number, list, module}
    data/0 ..  the bytes of the tensors

Every class of the program becomes `Module`, which keeps attributes and does nothing. The dotted path to a tensor is
its name. The pickle may call only what rebuilds tensors and lists.
"""

import io
import pickle
import pickletools
import zipfile
from collections import OrderedDict
from collections.abc import Iterator
from pathlib import Path

import torch
from torch import Tensor

PIECE = 2**20  # bytes that are copied at a time
STORAGES = {
    "HalfStorage": torch.float16,
    "BFloat16Storage": torch.bfloat16,
    "FloatStorage": torch.float32,
    "DoubleStorage": torch.float64,
    "LongStorage": torch.int64,
    "IntStorage": torch.int32,
    "BoolStorage": torch.bool,
}


class Module:
    """A module of the program: its attributes, none of its methods."""

    def __setstate__(self, attributes: dict) -> None:
        self.__dict__.update(attributes)


def tensor(flat: Tensor, offset: int, size: tuple, stride: tuple, *_) -> Tensor:
    """The tensor of this shape in a storage's numbers; torch checks that it does not reach beyond them."""
    return flat.as_strided(size, stride, offset)


class Unpickler(pickle.Unpickler):
    """Builds Modules, tensors and plain containers. Any other name is an error."""

    def __init__(self, archive: zipfile.ZipFile, root: str):
        program = archive.read(f"{root}/data.pkl")
        check_memo(program)
        super().__init__(io.BytesIO(program))
        self.archive, self.root, self.flat = archive, root, {}

    def find_class(self, module: str, name: str) -> object:
        if module.partition(".")[0] == "__torch__":
            return Module
        if module == "torch" and name in STORAGES:
            return STORAGES[name]
        if (module, name) == ("torch._utils", "_rebuild_tensor_v2"):
            return tensor
        if module == "torch.jit._pickle":  # build_intlist and its like mark the type of a list
            return lambda value, *_: value
        if (module, name) == ("collections", "OrderedDict"):
            return OrderedDict
        raise ValueError(f"a TorchScript archive that calls {module}.{name}, expected modules and tensors only")

    def persistent_load(self, saved: tuple) -> Tensor:
        """The numbers of a storage ("storage", dtype, key, device, count)."""
        _, dtype, key, _, _ = saved
        if key not in self.flat:
            data = self.member(f"{self.root}/data/{key}")
            self.flat[key] = torch.frombuffer(data, dtype=dtype) if data else torch.empty(0, dtype=dtype)
        return self.flat[key]

    def member(self, name: str) -> bytearray:
        """The bytes of a member, which is not compressed (weights/formats/pickled.py), in memory once."""
        data = bytearray(self.archive.getinfo(name).file_size)
        with self.archive.open(name) as file:
            for start in range(0, len(data), PIECE):
                part = file.read(PIECE)
                data[start : start + len(part)] = part
        return data


def check_memo(program: bytes) -> None:
    """ValueError for a pickle that remembers an object by a number beyond its bytes: Python makes so large a table."""
    try:
        codes = [*pickletools.genops(program)]
    except ValueError as error:
        raise pickle.UnpicklingError(str(error)) from None
    for code, argument, _ in codes:
        if code.name in ("PUT", "BINPUT", "LONG_BINPUT") and argument > len(program):
            raise ValueError(f"a TorchScript archive that remembers an object as number {argument:,}")


def read(path: str | Path) -> dict[str, Tensor]:
    """{dotted name: tensor}, in memory. ValueError, naming the file, for anything but modules with tensors."""
    try:
        with zipfile.ZipFile(path) as archive:
            pickled = next(name for name in archive.namelist() if name.endswith("/data.pkl"))
            return dict(walk(Unpickler(archive, pickled.removesuffix("/data.pkl")).load(), ""))
    except StopIteration:
        raise ValueError(f"{path}: a TorchScript archive without data.pkl, expected modules and tensors") from None
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from None
    # a hostile or damaged pickle can fail in any way
    except Exception as error:
        raise ValueError(f"{path}: damaged TorchScript archive: {type(error).__name__}: {error}") from None


def walk(module: Module, path: str) -> Iterator[tuple[str, Tensor]]:
    """(name, tensor) of a module and of all modules in it."""
    for name, value in vars(module).items():
        if isinstance(value, Tensor):
            yield path + name, value
        elif isinstance(value, Module):
            yield from walk(value, f"{path}{name}.")

"""torch.save files (.pt, .ckpt, .bin, .pth), read without running anything that they hold.

A pickle is a program. `torch.load(weights_only=True)` runs only what builds tensors and plain containers. A few
harmless names that real checkpoints also mention are allowed below, most of them as stand-ins that do nothing. A file
with any other name is refused with the list of names; whoever trusts such a file can convert it to safetensors
elsewhere.
"""

import argparse
import pickle
import re
import zipfile
from pathlib import Path

import torch

from weights.formats import torchscript

MEMBERS = 200_000  # of an archive, one a tensor; the largest published models have some thousands
AGAIN = "the download is incomplete, delete the file and fetch it again"
LEGACY = bytes.fromhex("80028a0a6cfc9c46f9206aa85019")  # the magic number of torch before 1.6, as a pickle


def stand_in(dotted: str) -> type:
    """A class with this dotted name that accepts any arguments and state and keeps none."""
    module, name = dotted.rsplit(".", 1)
    nothing = {"__init__": lambda self, *a, **k: None, "__new__": lambda cls, *a, **k: object.__new__(cls)}
    nothing["__setstate__"] = lambda self, state: None
    return type(name, (), {"__module__": module, "__qualname__": name} | nothing)


# old pytorch_lightning checkpoints: callback states, and numpy numbers among their scores
STAND_INS = """pytorch_lightning.callbacks.model_checkpoint.ModelCheckpoint
    numpy.core.multiarray.scalar numpy._core.multiarray.scalar
    numpy.dtype numpy.dtypes.Float64DType numpy.dtypes.Float32DType numpy.dtypes.Int64DType""".split()
HARMLESS = [argparse.Namespace, *map(stand_in, STAND_INS)]  # a Namespace is the `args` of DiT's train.py


def read(path: str | Path) -> object:
    """The object in the file, its tensors mapped from the disk; a file of torch < 1.6 is read whole.

    For a TorchScript program it is its tensors by name. Raises ValueError, naming the file, if it is cut off,
    compressed, or mentions an unknown name.
    """
    with open(path, "rb") as file:
        legacy = file.read(len(LEGACY)) == LEGACY
    if not legacy and scripted(path):
        return torchscript.read(path)
    # newer torch believes this ending, right or wrong; an open file hides it, but cannot be mapped
    mapped = not legacy and not str(path).endswith(".safetensors")
    with torch.serialization.safe_globals(HARMLESS), open(path, "rb") as file:
        try:
            unknown = [] if legacy else sorted(torch.serialization.get_unsafe_globals_in_checkpoint(file))
            file.seek(0)
            if not unknown:
                return torch.load(path if mapped else file, map_location="cpu", weights_only=True, mmap=mapped)
        except (pickle.UnpicklingError, EOFError) as error:
            unknown = re.findall(r"GLOBAL (\S+)", str(error))
            if not unknown:
                raise ValueError(f"{path}: not a readable checkpoint: {first_line(error)}") from None
        # a hostile or damaged pickle can fail in any way
        except Exception as error:
            raise ValueError(f"{path}: damaged checkpoint: {type(error).__name__}: {first_line(error)}") from None
    raise ValueError(
        f"{path}: a pickle that calls {', '.join(unknown)}, expected only tensors and plain containers; it was not "
        "opened, because such names can run any code: get the safetensors version of these weights"
    )


def first_line(error: Exception) -> str:
    return (str(error).strip().splitlines() or ["no reason given"])[0]


def scripted(path: str | Path) -> bool:
    """Whether the archive is a TorchScript program; ValueError unless it is that or a whole, plain torch.save file."""
    try:
        with zipfile.ZipFile(path) as archive:
            members = archive.infolist()
    except Exception:  # zipfile fails in many ways on a damaged table
        raise ValueError(
            f"{path}: a torch archive without the table of contents at its end, found "
            f"{Path(path).stat().st_size:,} bytes; {AGAIN}"
        ) from None
    if len(members) > MEMBERS:
        raise ValueError(f"{path}: an archive of {len(members):,} members, at most {MEMBERS:,} are read")
    names = [member.filename.split("/", 1)[-1] for member in members]
    script = "constants.pkl" in names or any(name.startswith("code/") for name in names)
    # a program's source is compressed, and is not read
    loaded = [m for m, name in zip(members, names) if not script or name == "data.pkl" or name.startswith("data/")]
    packed = [member.filename for member in loaded if member.compress_type != zipfile.ZIP_STORED]
    if packed:
        raise ValueError(f"{path}: compressed members ({packed[0]}, ...), torch.save writes none")
    whole, size = sum(member.file_size for member in loaded), Path(path).stat().st_size
    if whole > size:
        raise ValueError(f"{path}: members of {whole:,} bytes in an archive of {size:,}: they overlap")
    if not script and "data.pkl" not in names:
        raise ValueError(f"{path}: a zip archive without data.pkl, expected one written by torch.save")
    return script

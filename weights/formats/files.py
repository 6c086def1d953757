"""Any weights file or folder -> ({name: tensor}, metadata). Its content decides how it is read, not its ending.

    safetensors     mapped, checked against its header (weights/formats/safe.py)
    torch.save      mapped, nothing in it is run (weights/formats/pickled.py)
    folder          diffusers' names: one file, or shards with an index; a variant is an infix such as `.fp16`

Wrappers around the names are removed: `state_dict`, the `model`/`ema` of DiT's train.py, the `student`/`teacher` of
DINO's, `module.`, `_orig_mod.`.
"""

import re
import warnings
from collections.abc import Iterator
from pathlib import Path

from torch import Tensor, strided

from border import checked, read_json, read_lfs_pointer
from weights.formats import pickled, safe

Weights = tuple[dict[str, Tensor], dict]  # ({name: tensor}, metadata)
STEMS = ("diffusion_pytorch_model", "model", "pytorch_model")
COMPONENTS = ("transformer", "unet", "controlnet", "vae", "text_encoder")  # folders of a diffusers pipeline


def read(path: str | Path, ema: bool = True, variant: str | None = None, component: str | None = None) -> Weights:
    """The tensors by name, and the metadata. The tensors are maps of the file: nothing is read until it is used.

    ema: of a training checkpoint with both, the averaged weights (True) or the raw ones. variant: infix of a folder's
    files. component: subfolder of a diffusers pipeline, by default its transformer.
    metadata: a safetensors header's strings; "args" of a training checkpoint; "config" of a folder's config.json;
    "model_index" of a pipeline. Raises ValueError in one sentence with the file, what was expected and what was found.
    """
    path = Path(path)
    tensors, metadata = read_folder(path, variant, component, ema) if path.is_dir() else read_file(path, ema)
    return without_prefixes(tensors), metadata


def read_file(path: Path, ema: bool) -> Weights:
    """One file, without its wrappers, prefixes still on the names."""
    if not path.is_file():
        raise ValueError(f"{path}: no such file or folder")
    return safe.read(path) if sniff(path) == "safetensors" else unwrap(path, pickled.read(path), ema)


def sniff(path: Path) -> str:
    """ "safetensors" or "torch" by the first bytes; ValueError that says what any other file is."""
    with open(path, "rb") as file:
        head = file.read(512)
        size = file.seek(0, 2)
    text = head.lstrip().lower()
    if head[:4] == b"PK\x03\x04" or head.startswith(pickled.LEGACY):
        return "torch"
    if head[8:9] == b"{":
        return "safetensors"
    if (pointer := read_lfs_pointer(head, " of weights")) is not None:
        raise ValueError(f"{path}: {pointer}")
    if text.startswith((b"<!doctype", b"<html", b"<?xml", b'{"error')):
        raise ValueError(f"{path}: a web page of {size:,} bytes, expected weights; the download answered with an error")
    if head[:4] == b"GGUF":
        raise ValueError(f"{path}: a GGUF file, expected safetensors or a torch.save file")
    if head[:1] == b"\x80":
        raise ValueError(f"{path}: a plain pickle, expected safetensors or a torch.save file; it was not opened")
    begins = f"{head[:8]!r} as its first bytes" if head else "an empty file"
    raise ValueError(f"{path}: expected safetensors or a torch.save file, found {begins}")


def unwrap(path: Path, content: object, ema: bool) -> Weights:
    """The {name: tensor} inside a training checkpoint, and {"args": ...} where it holds its training's arguments."""
    metadata = {}
    if not isinstance(content, dict):
        raise ValueError(f"{path}: expected a dict of tensors, found {type(content).__name__}")
    while isinstance(content.get("state_dict"), dict):
        content = content["state_dict"]
    averaged, raw = ("teacher", "student") if "teacher" in content else ("ema", "model")
    if any(isinstance(content.get(key), dict) for key in (averaged, raw)):
        args = content.get("args")
        metadata["args"] = dict(args if isinstance(args, dict) else getattr(args, "__dict__", {}))
        wanted = (averaged, raw) if ema else (raw,)
        keys = [key for key in wanted if isinstance(content.get(key), dict)]
        if not keys:
            raise ValueError(
                f"{path}: expected the raw weights under `{raw}`, found only {', '.join(map(str, content))}"
            )
        content = content[keys[0]]
    nested = [str(key) for key, value in content.items() if isinstance(value, dict)]
    if nested and not any(isinstance(value, Tensor) for value in content.values()):
        raise ValueError(f"{path}: expected one set of weights, found several under other names: {', '.join(nested)}")
    tensors = {key: value.detach() for key, value in content.items() if isinstance(value, Tensor)}
    odd = [key for key, value in tensors.items() if not isinstance(key, str) or value.layout != strided]
    if odd or not tensors:
        raise ValueError(f"{path}: expected named dense tensors, found {odd[0] if odd else 'none'}")
    return tensors, metadata


def without_prefixes(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    """The tensors without what DistributedDataParallel, torch.compile and wrappers put before every name."""
    while tensors:
        first = re.match(r"module\.|_orig_mod\.|ema\.|model\.(?!diffusion_model\.)", next(iter(tensors)))
        if not first or not all(name.startswith(first[0]) for name in tensors):
            break
        tensors = {name.removeprefix(first[0]): tensor for name, tensor in tensors.items()}
    return tensors


def read_folder(folder: Path, variant: str | None, component: str | None, ema: bool) -> Weights:
    """One component of a diffusers folder: its weights, and as metadata its config.json and model_index.json."""
    metadata = {}
    if (folder / "model_index.json").is_file():
        metadata["model_index"] = read_json(folder / "model_index.json")
        components = [name for name in COMPONENTS if (folder / name).is_dir()]
        component = component or ("transformer" if "transformer" in components else None)
        if component not in components:
            expected = component or "a transformer (name another component to read it)"
            raise ValueError(f"{folder}: expected {expected}, found {', '.join(components) or 'no component'}")
        folder = folder / component
    if (folder / "config.json").is_file():
        metadata["config"] = read_json(folder / "config.json")
    file = choose(folder, variant)
    if ".index." in file.name:
        return read_shards(file, ema), metadata
    tensors, header = read_file(file, ema)
    return tensors, header | metadata


def choose(folder: Path, variant: str | None) -> Path:
    """The file to read: the variant asked for, else the plain file, else any other variant, with a warning.

    Of one variant, safetensors come before .bin, and one file before shards.
    """
    if variant is not None and not re.fullmatch(r"\w+", variant):
        raise ValueError(f"variant {variant!r} must be a plain word such as fp16")
    names = sorted(file.name for file in folder.iterdir())
    pattern = rf"(?:{'|'.join(STEMS)})\.(\w+?)(?:-\d+-of-\d+)?\.(?:safetensors|bin)$"
    infixes = [match[1] for name in names if (match := re.match(pattern, name))]
    for infix in dict.fromkeys([variant, None, *infixes]):
        for name in candidates(f".{infix}" if infix else ""):
            if name in names:
                if infix != variant:
                    missing = f"no variant {variant!r}" if variant else "no plain weights"
                    warnings.warn(f"{folder}: {missing}, reading {name}", stacklevel=4)
                return folder / name
    expected = f"{STEMS[0]}.safetensors, model.safetensors or their like"
    raise ValueError(f"{folder}: expected {expected}, found {', '.join(names) or 'nothing'}")


def candidates(dot: str) -> Iterator[str]:
    """File names of one variant (`dot` is "" or ".fp16"), best first; indexes are spelt in two ways."""
    for ending in ("safetensors", "bin"):
        for stem in STEMS:
            yield f"{stem}{dot}.{ending}"
            yield f"{stem}.{ending}.index{dot}.json"
            yield f"{stem}{dot}.{ending}.index.json"


def read_shards(index: Path, ema: bool) -> dict[str, Tensor]:
    """All tensors of the shards of an index. Each shard must hold exactly the names that the index gives it."""
    files = checked(read_json(index).get("weight_map"), dict[str, str], f"{index}: weight_map")
    shards = sorted(set(files.values()))
    outside = [shard for shard in shards if Path(shard).name != shard or "\\" in shard]
    if outside:
        raise ValueError(f"{index}: a shard must lie beside its index, found {outside[0]!r}")
    missing = [shard for shard in shards if not (index.parent / shard).is_file()]
    if missing:
        raise ValueError(f"{index}: {len(missing)} of {len(shards)} shards are missing: {', '.join(missing)}")
    tensors = {}
    for shard in shards:
        part = read_file(index.parent / shard, ema)[0]
        expected = {name for name, file in files.items() if file == shard}
        if part.keys() != expected:
            first = min(part.keys() ^ expected)
            raise ValueError(
                f"{index.parent / shard}: expected the {len(expected)} tensors of the index, found "
                f"{len(part)}; the first difference is {first}"
            )
        tensors |= part
    return tensors

"""Adapter files of this package: what a fine-tune trained and nothing else, in safetensors.

header["graft"] = {"kind": "adapter", "adapter": [specs], "classes": [names] or null, "sources": [[ids]] or null,
                   "parents": {class: superclass} or null, "tokens": {word: vectors} or null, "base": fingerprint,
                   "config": {...}}

Without sources a table of another length starts from the mean of all old rows. Where that is shorter, as for many
classes that start from the same rows, each list of ids stands once: "sources": {"lists": [[ids]], "of": [number of its
list, for each class]}.
"""

import hashlib
import json
from dataclasses import asdict, is_dataclass
from pathlib import Path
from typing import Any

from torch import Tensor, nn

import adapters
from border import checked
from weights.formats import files, safe

TABLE = "y_embedder.embedding_table.weight"  # a fine-tune gives it other rows, so it is in no fingerprint
FIELDS = {  # type of each field of a header, in the order in which they are written
    "adapter": list[str],
    "classes": list[str] | None,
    "sources": list[list[int]] | dict[str, Any] | None,
    "parents": dict[str, str] | None,
    "tokens": dict[str, int] | None,
    "base": dict[str, Any],
    "config": dict[str, Any] | None,
}


def fingerprint(model: nn.Module) -> dict:
    """What identifies a base model, to be taken before adapters are attached.

    "model" is its class, "config" its config or those of its parts, "structure" a digest of names and shapes,
    "content" a digest of 16 values of every tensor, so that nothing large is read; a flow's "objective" is "flow".
    """
    structure, content = hashlib.sha256(), hashlib.sha256()
    for name, tensor in sorted(model.state_dict().items()):
        if name != TABLE:
            structure.update(f"{name} {list(tensor.shape)}\n".encode())
            flat = tensor.detach().flatten()
            content.update(flat[:: max(1, len(flat) // 16)][:16].float().cpu().numpy().tobytes())
    parts = {"": model} if hasattr(model, "config") else {f"{name} ": part for name, part in model.named_children()}
    config = {
        before + field: value
        for before, part in parts.items()
        if is_dataclass(getattr(part, "config", None))
        for field, value in asdict(part.config).items()
    }
    config = json.loads(json.dumps(config)) or None  # as JSON gives it back
    flow = {"objective": "flow"} if getattr(model, "objective", "diffusion") == "flow" else {}
    return {
        "model": type(model).__name__,
        "config": config,
        "structure": structure.hexdigest()[:16],
        "content": content.hexdigest()[:16],
    } | flow


def save_adapter(path: str | Path, model: nn.Module, header: dict) -> None:
    """Write what trains, the buffers that its methods keep, and `header`, which says how they go onto a base again.

    "adapter" and "base" are required, the other fields of the header are optional:
        adapter   the specs as attached
        base      the fingerprint of the model before that
        classes   names of the rows of a resized class table, in order
        sources   as given to resize_classes
        parents   {class: superclass}; a superclass is one of the classes too
        tokens    {learned word: number of vectors}, in the order of their rows
        config    anything worth keeping, as JSON
    Raises ValueError if nothing trains, and for missing or unknown fields.
    """
    tensors = {name: parameter.detach() for name, parameter in adapters.trainable_parameters(model).items()}
    tensors |= adapters.kept_buffers(model)
    if not tensors:
        raise ValueError("no parameter has requires_grad: there is no adapter to save")
    if not {"adapter", "base"} <= header.keys() <= set(FIELDS):
        raise ValueError(f"a header needs adapter and base and knows {sorted(FIELDS)}, found {sorted(header)}")
    specs = [header["adapter"]] if isinstance(header["adapter"], str) else list(header["adapter"])
    graft = {"kind": "adapter"} | dict.fromkeys(FIELDS) | header | {"adapter": specs}
    graft["sources"] = compact(graft["sources"])
    safe.write(path, tensors, {"format": "pt", "graft": json.dumps(graft)})


def load_adapter(path: str | Path) -> tuple[dict[str, Tensor], dict]:
    """The tensors by name, mapped from a file of `save_adapter`, and its header. ValueError for any other file."""
    path = Path(path)
    if not path.is_file() or files.sniff(path) != "safetensors":
        raise ValueError(
            f"{path}: expected an adapter file written by this package, found "
            f"{'a torch.save file' if path.is_file() else 'no such file'}"
        )
    tensors, metadata = safe.read(path)
    header = safe.graft_header(metadata, path)
    if header.pop("kind", None) != "adapter":
        raise ValueError(
            f"{path}: expected an adapter file written by this package, found {len(tensors)} tensors "
            f"without its header ({', '.join(list(tensors)[:2])}, ...)"
        )
    header = {
        field: checked(header.get(field), kind, f"{path}: its header's {field}", 0) for field, kind in FIELDS.items()
    } | {field: value for field, value in header.items() if field not in FIELDS}
    checked(header["base"].get("config"), dict[str, Any] | None, f"{path}: its header's base, its config")
    header["sources"] = expanded(header["sources"], f"{path}: its header's sources")
    classes, parents = header["classes"], header["parents"] or {}
    unknown = sorted({*parents, *parents.values()} - set(classes or []))
    if unknown:
        raise ValueError(f"{path}: {unknown[0]!r} has a superclass or is one, and is none of the classes {classes!r}")
    return tensors, header


def compact(sources: list[list[int]] | None) -> list | dict | None:
    """The sources as a header holds them: as they are, or each list of them once, whichever has fewer numbers."""
    number = {}
    of = [number.setdefault(tuple(ids), len(number)) for ids in sources or []]
    shorter = sources and sum(map(len, number)) + len(of) < sum(map(len, sources))
    return {"lists": [list(ids) for ids in number], "of": of} if shorter else sources


def expanded(sources: list | dict | None, name: str) -> list[list[int]] | None:
    """The sources that `compact` was given; equal ones are one list. ValueError, which begins with `name`, if none."""
    if not isinstance(sources, dict):
        return sources
    lists = checked(sources.get("lists"), list[list[int]], f"{name}: lists", 0)
    if not lists:
        raise ValueError(f"{name}: lists must hold one list at least")
    return [lists[i] for i in checked(sources.get("of"), list[int], f"{name}: of", 0, len(lists) - 1)]

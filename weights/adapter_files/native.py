"""Adapter files: what a fine-tune trained and nothing else, in safetensors.

    header["graft"] = {"kind": "adapter", "adapter": [specs], "classes": [names] or null, "sources": [[ids]] or null,
                       "parents": {class: superclass} or null, "tokens": {word: vectors} or null, "base": fingerprint,
                       "config": {...}}

A file goes onto a model with a strength s. With theta0 the value before training (that of the base, or the identity
that the method starts from: B = 0 of LoRA and DoRA, g = 1 of DoRA, M = 0 of OFT, gamma = 1 of DiffFit, W_up = 0 and
b_up = 0 of a bottleneck, w = 1 and b = 0 of a norm that gets them, the first sigma of BNN, V, U, m and a of modulate)

    theta = theta0 + s (theta_file - theta0)

and several files add up their differences; each is folded into the weights before the next, except for what does not
fold, which stays on its layers.
"""

import hashlib
import json
import math
import warnings
from dataclasses import asdict, is_dataclass
from pathlib import Path

import torch
from torch import Tensor, nn

import adapters
from adapters.methods.bnn import Gaussian
from dit import ControlledDiT, DiT, resize_classes
from weights.adapter_files.lora_import import apply_foreign, is_foreign
from weights.formats import files, safe
from weights.formats.safe import graft_header
from weights.layouts.exchange import counted

TABLE = "y_embedder.embedding_table.weight"  # a fine-tune gives it rows of its own, so no fingerprint holds it
# first halves of a path: they mean nothing without the second, which starts at 0 and alone carries the strength
FIRST_HALVES = (".lora_down", ".dora_down", ".bottleneck_down", ".bottleneck_down_bias")
# in this order: the same run, the same bytes
FIELDS = ("adapter", "classes", "sources", "parents", "tokens", "base", "config")


def fingerprint(model: nn.Module) -> dict:
    """What tells a base model apart: its class, config or its parts', a digest of names and shapes, and one of values.

    Take it before adapters are attached. The values are 16 of every tensor, so that nothing large is read.
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
    config = json.loads(json.dumps(config)) or None  # as it will be read again
    return {
        "model": type(model).__name__,
        "config": config,
        "structure": structure.hexdigest()[:16],
        "content": content.hexdigest()[:16],
    }


def save_adapter(path: str | Path, model: nn.Module, recipe: dict) -> None:
    """Writes the parameters with requires_grad, and `recipe`, which says how to put them onto a base again.

    recipe: "adapter" the specs as attached, "base" the fingerprint from before; where the class table was resized,
    "classes" its names in order and "sources" as given to resize_classes; "parents" the superclasses of those classes
    that have one, which are names of rows too; "tokens" the words that were learned, with their numbers of vectors, in
    the order of their rows; "config" anything worth keeping, as JSON.
    Raises ValueError if nothing trains or the recipe has other or too few fields.
    """
    tensors = {name: parameter.detach() for name, parameter in adapters.trainable_parameters(model).items()}
    if not tensors:
        raise ValueError("no parameter has requires_grad: there is no adapter to save")
    if not {"adapter", "base"} <= recipe.keys() <= set(FIELDS):
        raise ValueError(f"a recipe needs adapter and base and knows {sorted(FIELDS)}, found {sorted(recipe)}")
    specs = [recipe["adapter"]] if isinstance(recipe["adapter"], str) else list(recipe["adapter"])
    graft = {"kind": "adapter"} | dict.fromkeys(FIELDS) | recipe | {"adapter": specs}
    safe.write(path, tensors, {"format": "pt", "graft": json.dumps(graft)})


def load_adapter(path: str | Path) -> tuple[dict[str, Tensor], dict]:
    """-> ({name: tensor}, recipe), the tensors mapped from the file. ValueError if it is no adapter file of ours."""
    path = Path(path)
    if not path.is_file() or files.sniff(path) != "safetensors":
        raise ValueError(
            f"{path}: expected an adapter file written by this package, found "
            f"{'a torch.save file' if path.is_file() else 'no such file'}"
        )
    tensors, metadata = safe.read(path)
    recipe = graft_header(metadata, path)
    if recipe.pop("kind", None) != "adapter":
        raise ValueError(
            f"{path}: expected an adapter file written by this package, found {len(tensors)} tensors "
            f"without its header ({', '.join(list(tensors)[:2])}, ...)"
        )
    recipe = dict.fromkeys(FIELDS) | recipe
    specs, base, classes, sources = (recipe[field] for field in ("adapter", "base", "classes", "sources"))
    if not is_list(specs, str) or not isinstance(base, dict) or not isinstance(base.get("config") or {}, dict):
        raise ValueError(f"{path}: expected adapter specs and a base in its header, found {specs!r}, {base!r}")
    rows = [] if sources is None else sources
    if not is_list(classes or [], str) or not is_list(rows, list) or not all(is_list(ids, int) for ids in rows):
        raise ValueError(f"{path}: expected class names and lists of row ids, found {classes!r}, {sources!r}")
    parents = {} if recipe["parents"] is None else recipe["parents"]
    if not isinstance(parents, dict) or not is_list([*parents, *parents.values()], str):
        raise ValueError(f"{path}: expected one superclass name for each class name, found {parents!r}")
    unknown = sorted({*parents, *parents.values()} - set(classes or []))
    if unknown:
        raise ValueError(f"{path}: {unknown[0]!r} has a superclass or is one, and is none of the classes {classes!r}")
    return tensors, recipe


def is_list(value: object, kind: type) -> bool:
    return isinstance(value, list) and all(isinstance(item, kind) for item in value)


def apply_adapters(model: nn.Module, files: list[tuple[str, float]], sampled: bool = False) -> nn.Module:
    """Puts adapter files, each with a strength, onto their base and folds what folds; in place, returns it frozen.

    LoRA files of other tools (weights/adapter_files/lora_import.py) go onto the result, in their order.
    sampled: Gaussian weights (adapters/methods/bnn.py) are not folded to their mean but drawn in every forward.
    Class-conditional files first give the class table the rows that they were trained with, and the model's attributes
    `classes` and `parents` their names and superclasses. Raises ValueError for a base of another structure, different
    classes, parameters that are missing, unknown or of another shape, a second file with a method that does not fold,
    and for a file that changes nothing; the model is then of no more use. Warns if the base has the same shape but
    other values.
    """
    theirs = [is_foreign(path) for path, _ in files]
    loaded = [(path, strength, *load_adapter(path)) for (path, strength), no in zip(files, theirs) if not no]
    base = fingerprint(model)
    for path, strength, _, recipe in loaded:
        if not math.isfinite(strength):
            raise ValueError(f"{path}: strength must be a finite number, found {strength}")
        check_base(path, recipe["base"], base)
    give_classes(model, loaded)
    give_schedule(model, loaded)
    held = {name for _, _, tensors, _ in loaded for name in tensors}
    start = {name: p.detach() for name, p in model.named_parameters() if name in held}
    if len(loaded) > 1:  # one file's fold must not change what the next is measured from
        start = {name: tensor.clone() for name, tensor in start.items()}
    for path, strength, tensors, recipe in loaded:
        apply_one(model, path, strength, tensors, recipe, start)
        adapters.merge(model, keep=Gaussian if sampled else ())
        left = dict(model.named_parameters())
        start = {name: tensor for name, tensor in start.items() if name in left}
    for (path, strength), foreign in zip(files, theirs):
        if foreign:
            apply_foreign(model, path, strength)
    model.requires_grad_(False).eval()
    return adapters.sampled(model) if sampled else model


def with_control(model: DiT, path: str | Path) -> ControlledDiT:
    """The DiT with the branch that the control recipe left in `path`. Raises ValueError for any other file."""
    tensors, _ = load_adapter(path)
    copies = {name.split(".")[2] for name in tensors if name.startswith("control.blocks.")}
    if not copies:
        raise ValueError(f"{path}: expected a ControlNet for a DiT, found an adapter that trains {next(iter(tensors))}")
    return apply_adapters(ControlledDiT(model, len(copies)), [(str(path), 1.0)])


@torch.no_grad()
def apply_one(
    model: nn.Module,
    path: str | Path,
    strength: float,
    tensors: dict[str, Tensor],
    recipe: dict,
    start: dict[str, Tensor],
) -> None:
    """One file onto the model, not folded yet; `start` (theta0 by name) gains the parameters that the method adds."""
    base_names = set(start)
    earlier = adapters.adapter_parameters(
        model
    )  # this file's methods may train them by name, and it was made without them
    try:
        adapters.attach(model, recipe["adapter"], generator=torch.Generator())
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from error
    parameters = dict(model.named_parameters())
    missing = sorted(adapters.trainable_parameters(model).keys() - tensors.keys() - earlier)
    unknown = sorted(tensors.keys() - parameters.keys())
    wrong = [
        f"{name} expected {list(parameters[name].shape)}, found {list(tensor.shape)}"
        for name, tensor in tensors.items()
        if name in parameters and tensor.shape != parameters[name].shape
    ]
    counts = counted((missing, "missing"), (unknown, "unknown"), (wrong, "of another shape"))
    if counts:
        specs = ", ".join(recipe["adapter"])
        raise ValueError(f"{path}: expected the parameters of {specs}, found {', '.join(counts)}")
    changed = False
    for name, tensor in tensors.items():
        parameter = parameters[name]
        value, theta0 = tensor.to(parameter), start.setdefault(name, parameter.detach().clone())
        if name.endswith(FIRST_HALVES):
            parameter.data = value
            continue
        changed = changed or not torch.equal(value, theta0)
        if strength == 1 and torch.equal(parameter, theta0):
            parameter.data = value
            continue
        if name not in base_names and theta0.min() != theta0.max():
            raise ValueError(f"{path}: {name} has no value of no change, so its strength must be 1, found {strength}")
        parameter.data = (parameter.float() + strength * (value.float() - theta0.float())).to(parameter)
    if not changed:
        raise ValueError(f"{path}: its {len(tensors)} tensors change nothing in this model; was it trained?")


def check_base(path: str | Path, expected: dict, found: dict) -> None:
    """ValueError with reasons if the structures differ; a warning if only the values do."""
    if expected.get("structure") != found["structure"]:
        theirs, ours = expected.get("config") or {}, found["config"] or {}
        reasons = [
            f"{name} {theirs[name]} but here {ours[name]}"
            for name in sorted(theirs.keys() & ours.keys())
            if name != "num_classes" and theirs[name] != ours[name]
        ]
        if expected.get("model") != found["model"]:
            reasons.insert(0, f"a {expected.get('model')} but here a {found['model']}")
        raise ValueError(f"{path}: trained on another base: {'; '.join(reasons) or 'other names or shapes of tensors'}")
    if expected.get("content") != found["content"]:
        warnings.warn(f"{path}: trained on a base of the same shape with other weights than this model's", stacklevel=3)


def give_schedule(model: nn.Module, loaded: list[tuple]) -> None:
    """The model's attribute `noise_schedule` becomes that of the files, the same in all; "fixed" leaves it as it is."""
    named = [(path, (recipe["config"] or {}).get("noise_schedule", "fixed")) for path, _, _, recipe in loaded]
    for path, name in named:
        if name != named[0][1]:
            raise ValueError(f"{path}: its noise_schedule {name} is not that of {named[0][0]}, {named[0][1]}")
        if name != "fixed":
            model.noise_schedule = name


def give_classes(model: nn.Module, loaded: list[tuple]) -> None:
    """The class table gets the rows of the files' classes: the same in all files that name some.

    Where a file does not tell what its rows started from, they start from the mean of all old classes.
    """
    named = [(path, tensors, recipe) for path, _, tensors, recipe in loaded if recipe["classes"] is not None]
    if not named:
        return
    first, _, recipe = named[0]
    for path, _, other in named[1:]:
        if (other["classes"], other["sources"]) != (recipe["classes"], recipe["sources"]):
            raise ValueError(f"{path}: its classes {other['classes']} are not those of {first}, {recipe['classes']}")
        if other["parents"] != recipe["parents"]:
            raise ValueError(f"{path}: its superclasses are not those of {first}, {recipe['parents']}")
    names, sources = recipe["classes"], recipe["sources"]
    if TABLE not in dict(model.named_parameters()):
        raise ValueError(f"{first}: it has classes, and a {type(model).__name__} has no class table")
    model.classes, model.parents = list(names), dict(recipe["parents"] or {})
    if sources is None and len(names) == model.config.num_classes:
        return
    if sources is None and not any(TABLE in tensors for _, tensors, _ in named):
        raise ValueError(f"{first}: expected rows of {len(names)} classes, found no rows and no sources")
    sources = [list(range(model.config.num_classes))] * len(names) if sources is None else sources
    if len(sources) != len(names):
        raise ValueError(f"{first}: {len(names)} classes and {len(sources)} sources for them")
    resize_classes(model, sources, torch.Generator().manual_seed(0))

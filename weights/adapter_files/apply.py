"""Adapter files onto a model, each with a strength s.

With theta0 the value before training and theta_file the value in the file,

    theta = theta0 + s (theta_file - theta0)

theta0 is the value of the base, or for a parameter that the method adds, the one that changes nothing: B = 0 of LoRA
and DoRA, g = 1 of DoRA, w2 = 0 of LoKr, M = 0 of OFT, gamma = 1 of DiffFit, W_up = 0 and b_up = 0 of a bottleneck,
w = 1 and b = 0 of a norm that gets them, the first sigma of BNN, V, U, m and a of modulate, S = S_0 = 0 of T-LoRA.
Several files add up their differences. Each is merged into the weights before the next; a method that does not merge
stays on its layers.
"""

import math
import warnings
from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor, nn

import adapters
import dit.inpaint
import unet.inpaint
from adapters.methods.bnn import Gaussian
from border import checked
from dit import ControlledDiT, DiT, resize_classes
from weights.adapter_files.lora_import import apply_foreign, is_foreign
from weights.adapter_files.native import TABLE, fingerprint, load_adapter
from weights.layouts.exchange import count_reasons

# first factors of a product: alone they change nothing; the second starts at 0 and carries the strength
FIRST_HALVES = (
    *(".lora_down", ".dora_down", ".lokr_w1", ".lokr_w2_a", ".bottleneck_down", ".bottleneck_down_bias"),
    *(".tlora_down", ".tlora_up", ".tlora_start_down", ".tlora_start_up"),
)
VALUES = (".tlora_values", ".tlora_start_values")  # S and S_0 carry the strength together: the path is linear in both


FIRST_LAYERS = ("x_embedder.proj", "unet.conv_in")


class Loaded(NamedTuple):
    """An adapter file of this package and the strength that it gets."""

    path: str | Path
    strength: float
    tensors: dict[str, Tensor]
    header: dict


def apply_adapters(model: nn.Module, files: list[tuple[str, float]], sampled: bool = False) -> nn.Module:
    """Apply adapter files (path, strength) to their base in place, merge what merges, and return the model frozen.

    LoRA files of other tools (weights/adapter_files/lora_import.py) come last, in their order. sampled: Gaussian
        weights (adapters/methods/bnn.py) are drawn anew in every forward and not merged to their mean.
    Class-conditional files first give the class table their rows, and set the model's attributes `classes` (names) and
    `parents` (superclasses).
        Raises ValueError for a base of another structure, different classes, parameters that are missing, unknown or of
    another shape, a second file of a method that does not merge, and a file that changes nothing; the model is then
    spoiled. Warns if the base has the same shape but other values.
    """
    foreign = [(path, strength) for path, strength in files if is_foreign(path)]
    loaded = [
        Loaded(path, strength, *load_adapter(path)) for path, strength in files if (path, strength) not in foreign
    ]
    base = fingerprint(model)
    for file in loaded:
        if not math.isfinite(file.strength):
            raise ValueError(f"{file.path}: strength must be a finite number, found {file.strength}")
        check_base(file.path, file.header["base"], base)
    give_classes(model, [file for file in loaded if file.header["classes"] is not None])
    give_schedule(model, loaded)
    give_inputs(model, loaded)
    names = {name for file in loaded for name in file.tensors}
    theta0 = {name: p.detach() for name, p in model.named_parameters() if name in names}
    if len(loaded) > 1:  # merging one file must not change what the next is measured from
        theta0 = {name: tensor.clone() for name, tensor in theta0.items()}
    for file in loaded:
        apply_one(model, file, theta0)
        adapters.merge(model, keep=Gaussian if sampled else ())
        left = dict(model.named_parameters())
        theta0 = {name: tensor for name, tensor in theta0.items() if name in left}
    for path, strength in foreign:
        apply_foreign(model, path, strength)
    model.requires_grad_(False).eval()
    return adapters.sampled(model) if sampled else model


def with_control(model: DiT, path: str | Path) -> ControlledDiT:
    """The DiT with the control branch that the control recipe wrote to `path`. ValueError for any other file."""
    tensors, _ = load_adapter(path)
    copies = {name.split(".")[2] for name in tensors if name.startswith("control.blocks.")}
    if not copies:
        raise ValueError(f"{path}: expected a ControlNet for a DiT, found an adapter that trains {next(iter(tensors))}")
    return apply_adapters(ControlledDiT(model, len(copies)), [(str(path), 1.0)])


def with_controls(model: DiT, files: list[tuple[str | Path, float]]) -> ControlledDiT:
    """The DiT with the control branches of all files, (path, strength) each. ValueError as with_control raises it."""
    first, *others = [with_control(model, path) for path, _ in files]
    return first.with_others(others, [strength for _, strength in files])


@torch.no_grad()
def apply_one(model: nn.Module, file: Loaded, theta0: dict[str, Tensor]) -> None:
    """Attach a file's methods and set their parameters, unmerged; `theta0` by name gains those that a method adds."""
    path, strength, tensors, header = file
    base_names = set(theta0)
    # methods of this file may train by name what an earlier file has added
    earlier = adapters.adapter_parameters(model)
    try:
        adapters.attach(model, header["adapter"], generator=torch.Generator())
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from error
    parameters, kept = dict(model.named_parameters()), adapters.kept_buffers(model)
    missing = sorted((adapters.trainable_parameters(model) | kept).keys() - tensors.keys() - earlier)
    parameters |= kept
    unknown = sorted(tensors.keys() - parameters.keys())
    wrong = [
        f"{name} expected {list(parameters[name].shape)}, found {list(tensor.shape)}"
        for name, tensor in tensors.items()
        if name in parameters and tensor.shape != parameters[name].shape
    ]
    counts = count_reasons((missing, "missing"), (unknown, "unknown"), (wrong, "of another shape"))
    if counts:
        specs = ", ".join(header["adapter"])
        raise ValueError(f"{path}: expected the parameters of {specs}, found {', '.join(counts)}")
    values = {name: tensor.to(parameters[name]) for name, tensor in tensors.items()}  # a file may hold float8
    changed = False
    for name, value in values.items():
        parameter = parameters[name]
        start = theta0.setdefault(name, parameter.detach().clone())
        if name.endswith(FIRST_HALVES + VALUES):
            parameter.data = strength * value if name.endswith(VALUES) else value
            begun = values.get(name.replace(".tlora_", ".tlora_start_"))  # of T-LoRA, which subtracts its start
            changed = changed or begun is not None and not torch.equal(value, begun)
            continue
        changed = changed or not torch.equal(value, start)
        if strength == 1 and torch.equal(parameter, start):
            parameter.data = value
            continue
        if name not in base_names and start.min() != start.max():
            raise ValueError(f"{path}: {name} has no value of no change, so its strength must be 1, found {strength}")
        parameter.data = (parameter.float() + strength * (value.float() - start.float())).to(parameter)
    if not changed:
        raise ValueError(f"{path}: its {len(tensors)} tensors change nothing in this model; was it trained?")


def check_base(path: str | Path, expected: dict, found: dict) -> None:
    """Compare two fingerprints: ValueError with reasons if the structures differ, a warning if only the values do."""
    theirs, ours = (base.get("objective", "diffusion") for base in (expected, found))
    if theirs != ours:
        raise ValueError(f"{path}: trained on a {theirs} model, and this is a {ours} model")
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


def give_schedule(model: nn.Module, files: list[Loaded]) -> None:
    """Set `model.noise_schedule` to the files' one, which must be the same in all; "fixed" changes nothing."""
    stored = [(file.path, (file.header["config"] or {}).get("noise_schedule", "fixed")) for file in files]
    names = [checked(name, str, f"{path}: noise_schedule in its header") for path, name in stored]
    for file, name in zip(files, names):
        if name != names[0]:
            raise ValueError(f"{file.path}: its noise_schedule {name} is not that of {files[0].path}, {names[0]}")
        if name != "fixed":
            model.noise_schedule = name


def give_inputs(model: nn.Module, files: list[Loaded]) -> None:
    """Make the model one that reads masks where a file's first layer has more input channels than the model's."""
    for layer in FIRST_LAYERS:
        own = dict(model.named_modules()).get(layer)
        stored = [file.tensors[name] for file in files if (name := f"{layer}.weight") in file.tensors]
        if own is not None and any(weight.shape[1] > own.in_channels for weight in stored):
            (dit.inpaint if isinstance(model, DiT) else unet.inpaint).take_mask(model)


def give_classes(model: nn.Module, files: list[Loaded]) -> None:
    """Give the class table the rows of the files' classes, which must be the same in all these files.

    Where a file has no sources, the new rows start as the mean of all old classes.
    """
    if not files:
        return
    first, header = files[0].path, files[0].header
    names, sources, parents = header["classes"], header["sources"], header["parents"]
    for path, _, _, other in files[1:]:
        if (other["classes"], other["sources"]) != (names, sources):
            raise ValueError(f"{path}: its classes {other['classes']} are not those of {first}, {names}")
        if other["parents"] != parents:
            raise ValueError(f"{path}: its superclasses are not those of {first}, {parents}")
    if TABLE not in dict(model.named_parameters()):
        raise ValueError(f"{first}: it has classes, and a {type(model).__name__} has no class table")
    model.classes, model.parents = list(names), dict(parents or {})
    if sources is None and len(names) == model.config.num_classes:
        return
    if sources is None and not any(TABLE in file.tensors for file in files):
        raise ValueError(f"{first}: expected rows of {len(names)} classes, found no rows and no sources")
    sources = [list(range(model.config.num_classes))] * len(names) if sources is None else sources
    if len(sources) != len(names):
        raise ValueError(f"{first}: {len(names)} classes and {len(sources)} sources for them")
    try:
        resize_classes(model, sources, torch.Generator().manual_seed(0))
    except ValueError as error:
        raise ValueError(f"{first}: {error}") from None

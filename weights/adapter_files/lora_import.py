"""Adapter files of other tools onto a Stable Diffusion: kohya's (A1111, ComfyUI), LyCORIS', diffusers' and peft's.

    a file at strength k:  W + k (W' - W),  b + k d        with W' and d as in weights/adapter_files/lora_change.py

The scale of a product, such as B A, is alpha / r. alpha is a tensor of the file, or a field of a config beside it or in
its header; without alpha the scale is 1.
"""

import math
import re
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from border import checked, parse_json, read_json
from weights.adapter_files.lora_change import Change, change, difference
from weights.adapter_files.lora_names import DIFFUSERS, Place, places
from weights.formats import files, safe
from weights.layouts.exchange import count_reasons
from weights.layouts.families import base_of_lora, base_of_model, check_lora

ROLES = [
    (re.compile(pattern), role)
    for pattern, role in (
        (r"(\.lora_linear_layer\.|[._]lora[._])down\.weight$|\.lora_A(\.default)?\.weight$", "lora_down"),
        (r"(\.lora_linear_layer\.|[._]lora[._])up\.weight$|\.lora_B(\.default)?\.weight$", "lora_up"),
        (r"\.lora_mid\.weight$", "lora_mid"),
        (r"\.(hada_(?:w[12]_[ab]|t[12]))$", r"\1"),
        (r"\.(lokr_(?:w[12](?:_[ab])?|t2))$", r"\1"),
        (r"(\.lora_linear_layer|[._]lora)?\.alpha$", "alpha"),
        (r"\.lora_magnitude_vector(\.default)?(\.weight)?$", "magnitude"),
        (r"\.dora_scale$", "dora_scale"),
        (r"\.(diff|w_norm)$", "weight"),
        (r"\.(diff_b|b_norm)$", "bias"),
    )
]
PEFT_FILES = ("adapter_model.safetensors", "adapter_model.bin")
DIFFUSERS_FILES = ("pytorch_lora_weights.safetensors", "pytorch_lora_weights.bin")


def is_foreign(path: str | Path) -> bool:
    """Whether an adapter was written by another tool: a folder, or a file without this package's header."""
    path = Path(path)
    if path.is_file() and files.sniff(path) == "safetensors":
        return "graft" not in safe.read_metadata(path)
    return path.exists()


def read_foreign(path: str | Path, model: nn.Module) -> dict[str, Change]:
    """{name of a layer of `model`: its change}. Every tensor of the file is used.

    model: TextConditioned or UNet. path: a file, or a folder of peft (adapter_config.json, or unet/ and text_encoder/
    with one each) or of diffusers (pytorch_lora_weights). A file may be for the UNet alone or the text encoder alone.
    Raises ValueError that names the method for all but LoRA, LoCon, LoHa, LoKr, DoRA of them and full differences, and
    that names its base for a file of which any tensor does not fit.
    """
    path = Path(path)
    tensors, metadata, configs = collect(path)
    check_lora(tensors, path)
    try:
        table, found, unknown = places(model), {}, []
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from None
    for key, tensor in tensors.items():
        stem, role = role_of(key)
        if role is None or stem not in table:
            unknown.append(key)
            continue
        parts = found.setdefault(table[stem], {})
        if role in parts:
            raise ValueError(f"{path}: two tensors for the {role} of {table[stem].published}, {key} is the second")
        parts[role] = tensor
    changes, wrong = {}, []
    for place, parts in found.items():
        try:
            layer = model.get_submodule(place.name)
            changes[place.name] = change(parts, layer, lambda rank, at=place: scale_of(configs, at, rank))
        except ValueError as error:
            wrong.append(f"{place.published} {error}")
    counts = count_reasons((unknown, "that belong to no layer of it"), (wrong, "layers that do not fit"))
    if counts:
        raise ValueError(
            f"{path}: expected a LoRA for {base_of_model(model)}, found among {len(tensors)} tensors "
            f"{' and '.join(counts)}; it was made for {base_of_lora(tensors, metadata)}"
        )
    return changes


@torch.no_grad()
def apply_foreign(model: nn.Module, path: str | Path, strength: float = 1.0) -> int:
    """Merge the file's changes, times a strength, into the weights, computed in float32; returns how many layers.

    Raises ValueError as `read_foreign`, before anything is changed, and for a file that changes nothing.
    """
    if not math.isfinite(strength):
        raise ValueError(f"{path}: strength must be a finite number, found {strength}")
    changes, moved = read_foreign(path, model), False
    for name, found in changes.items():
        layer = model.get_submodule(name)
        for parameter, by in (("weight", difference(found, layer.weight)), ("bias", found.bias)):
            if by is not None:
                parameter = getattr(layer, parameter)
                by = by.to(parameter.device, torch.float32).reshape(parameter.shape)
                moved = moved or bool(by.any())
                parameter.copy_(parameter.float() + strength * by)
    if not moved:
        raise ValueError(f"{path}: its changes to {len(changes)} layers are all 0; was it trained?")
    return len(changes)


def collect(path: Path) -> tuple[dict[str, Tensor], dict, dict[str, dict]]:
    """(tensors, metadata, {"unet": peft's config of that part, "text": ...}) of a file or a folder."""
    if not path.is_dir():
        tensors, metadata = files.read_file(path, True)
        return tensors, metadata, stored_configs(path, metadata)
    folders = {path: tuple(DIFFUSERS)} | {
        path / name: tuple(part for part in DIFFUSERS if DIFFUSERS[part] == f"{name}.")
        for name in ("unet", "text_encoder", "text_encoder_2")
    }
    tensors, configs = {}, {}
    for folder, parts in folders.items():
        if (folder / "adapter_config.json").is_file():
            config = read_json(folder / "adapter_config.json")
            if config.get("peft_type", "LORA") != "LORA":
                raise ValueError(f"{folder}: expected a LoRA, found peft's {config['peft_type']}")
            before = f"{folder.name}." if folder.name == "text_encoder_2" else ""  # its names are those of the first
            found = files.read_file(one_of(folder, PEFT_FILES), True)[0]
            tensors |= {before + name: tensor for name, tensor in found.items()}
            configs |= dict.fromkeys(parts, config)
    return (tensors, {}, configs) if configs else collect(one_of(path, DIFFUSERS_FILES))


def one_of(folder: Path, names: tuple[str, ...]) -> Path:
    for name in names:
        if (folder / name).is_file():
            return folder / name
    there = ", ".join(sorted(entry.name for entry in folder.iterdir())[:5])
    raise ValueError(f"{folder}: expected {' or '.join(names)}, found {there or 'an empty folder'}")


def stored_configs(path: str | Path, metadata: dict) -> dict[str, dict]:
    """The configs of the parts in the header of a diffusers file, which holds one flat {"unet.lora_alpha": 8, ...}."""
    name = f"{path}: lora_adapter_metadata"
    flat = checked(parse_json(metadata.get("lora_adapter_metadata", "{}"), name), dict[str, Any], name)
    return {
        part: {key.removeprefix(before): value for key, value in flat.items() if key.startswith(before)}
        for part, before in DIFFUSERS.items()
    }


def role_of(key: str) -> tuple[str, str | None]:
    """ "unet.mid.lora_A.weight" -> ("unet.mid", "lora_down"); None for the role of no part that is read."""
    for pattern, role in ROLES:
        match = pattern.search(key)
        if match:
            return key[: match.start()], match.expand(role)
    return key, None


def scale_of(configs: dict[str, dict], place: Place, rank: int) -> float:
    """s by peft's config of the place's part, 1 without one. alpha_pattern is matched as in peft."""
    config = configs.get(place.part)
    if not config:
        return 1.0
    alpha = checked(config.get("lora_alpha", 8), float, "lora_alpha of its config")  # 8 is peft's default
    patterns = checked(config.get("alpha_pattern"), dict[str, float] | None, "alpha_pattern of its config")
    for pattern, value in (patterns or {}).items():
        try:
            if re.match(rf"(.*\.)?({pattern})$", place.published):
                alpha = value
                break
        except re.error as error:
            raise ValueError(f"has a pattern {pattern!r} that is no regular expression ({error})") from None
    stabilised = checked(config.get("use_rslora"), bool | None, "use_rslora of its config")
    return alpha / (math.sqrt(rank) if stabilised else rank)

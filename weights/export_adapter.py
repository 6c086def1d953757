"""Adapter files of this package for other tools, as python -m weights.convert RUN/adapter.safetensors TARGET --layout

    kohya               a LoRA for A1111, ComfyUI and most others, .safetensors
    lora-diffusers      a LoRA for diffusers' load_lora_weights, .safetensors; alpha / r is in B, where none can miss it
    learned-embeds      a learned word for diffusers' load_textual_inversion, .safetensors
    a1111-embedding     a learned word for A1111 and ComfyUI, .pt, which is called there by the name of the file

These files hold LoRA and words alone, so nothing else that was trained beside LoRA may be left out.
"""

import json
import re
import warnings
from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor

import adapters
from adapters.lora import ATTENTION
from data.atomic import replacing
from weights import safe
from weights.adapter_file import load_adapter
from weights.export import check_ending
from weights.lora_names import DIFFUSERS, KOHYA, published, underscored

ROWS = "text.token_embedding.token_rows"  # where a learned word lies in an adapter file
VERSIONS = {768: {"ss_v2": "False", "ss_base_model_version": "sd_v1"},  # by the width of the text states
            1024: {"ss_v2": "True", "ss_base_model_version": "sd_v2"}}  # fmt: skip


class LowRank(NamedTuple):
    """scale B A of one layer."""

    part: str  # "unet" or "text"
    name: str  # ours within the part
    down: Tensor  # A (r, in[, k, k])
    up: Tensor  # B (out, r[, 1, 1])
    scale: float  # alpha / r


def export_adapter(source, target, layout: str, dtype: torch.dtype | None = None) -> None:
    """Writes an adapter file of a text recipe, `source`, to `target` in one of LAYOUTS; dtype converts its tensors.

    Warns where the source holds LoRA and a word, of which the layout holds one. Raises ValueError for a source with
    other methods, one of a DiT, and one that lacks what the layout holds.
    """
    tensors, recipe = load_adapter(source)
    model = recipe["base"].get("model")
    if model not in ("TextConditioned", "UNet"):
        raise ValueError(f"{source}: {layout} is for a Stable Diffusion, found an adapter of a {model}")
    if model == "UNet":
        tensors = {f"unet.{name}": tensor for name, tensor in tensors.items()}
        recipe = recipe | {"adapter": [f"unet.{spec}" for spec in recipe["adapter"]]}
    words, rest = layout in ("learned-embeds", "a1111-embedding"), tensors.keys() - {ROWS}
    if rest if words else ROWS in tensors:
        other = f"the {len(rest)} other tensors" if words else f"the learned {' and '.join(recipe['tokens'] or {})}"
        warnings.warn(f"{source}: {layout} does not hold {other}, which were trained together with it", stacklevel=2)
    found = word_of(tensors, recipe, source) if words else low_rank(tensors, recipe, source, layout)
    LAYOUTS[layout](found, Path(target), dtype)


def low_rank(tensors: dict[str, Tensor], recipe: dict, source, layout: str) -> list[LowRank]:
    """The LoRA of an adapter file. alpha is in its specs, and a spec's targets tell its layers."""
    stems = [name.removesuffix(".lora_down") for name in tensors if name.endswith(".lora_down")]
    odd = sorted(tensors.keys() - {stem + half for stem in stems for half in (".lora_down", ".lora_up")} - {ROWS})
    if odd or not stems:
        specs, found = ", ".join(recipe["adapter"]), f"{len(odd)} other tensors ({odd[0]}, ...)" if odd else "no LoRA"
        raise ValueError(f"{source}: {layout} holds LoRA alone, found {found}, trained by {specs}")
    scales = {}
    for spec in recipe["adapter"]:
        part, rest = adapters.split(spec)
        method, options = adapters.parse(rest)
        inside = [stem for stem in stems if stem.startswith(f"{part}.")] if part else stems
        for stem in inside if method == "lora" else []:
            if re.search(options.get("targets", ATTENTION), stem.removeprefix(f"{part}." if part else "")):
                rank = len(tensors[f"{stem}.lora_down"])
                scales[stem] = options.get("alpha", rank) / rank
    unclaimed = [stem for stem in stems if stem not in scales]
    if unclaimed:
        raise ValueError(f"{source}: {unclaimed[0]} has a LoRA that none of its specs is for: {recipe['adapter']}")
    return [
        LowRank(*stem.split(".", 1), tensors[f"{stem}.lora_down"], tensors[f"{stem}.lora_up"], scales[stem])
        for stem in stems
    ]


def word_of(tensors: dict[str, Tensor], recipe: dict, source) -> tuple[str, Tensor]:
    """(token, rows (n, D)) of an adapter file with one learned word."""
    words = recipe["tokens"] or {}
    if ROWS not in tensors or len(words) != 1:
        raise ValueError(f"{source}: an embedding file holds one learned word, found {', '.join(words) or 'none'}")
    return next(iter(words)), tensors[ROWS]


def kohya(layers: list[LowRank], target: Path, dtype) -> None:
    check_ending(target, (".safetensors",))
    safe.write(target, kohya_tensors(layers), kohya_metadata(layers), dtype)


def kohya_tensors(layers: list[LowRank]) -> dict[str, Tensor]:
    tensors = {}
    for layer in layers:
        stem = KOHYA[layer.part] + underscored(published(layer.part, layer.name))
        alpha = torch.tensor(layer.scale * len(layer.down))
        tensors |= {f"{stem}.lora_down.weight": layer.down, f"{stem}.lora_up.weight": layer.up, f"{stem}.alpha": alpha}
    return tensors


def kohya_metadata(layers: list[LowRank]) -> dict[str, str]:
    """What A1111 and others look for: the version of the base, as far as the widths tell it, rank and alpha.

    Where ranks or alphas differ it says Dynamic, as kohya's own tools do; a tool takes them from the tensors.
    """
    small = [layer for layer in layers if layer.down.shape[2:].numel() == 1]
    large = [layer for layer in layers if layer.down.shape[2:].numel() > 1]
    widths = {layer.down.shape[1] for layer in layers if reads_text(layer)}
    version = VERSIONS.get(widths.pop(), {}) if len(widths) == 1 else {}
    rank, alpha = shared(small or large)
    of_convolutions = dict(zip(("conv_dim", "conv_alpha"), shared(large))) if large else {}
    return {"format": "pt", "ss_network_module": "networks.lora", "ss_network_dim": rank, "ss_network_alpha": alpha,
            "ss_network_args": json.dumps(of_convolutions)} | version  # fmt: skip


def reads_text(layer: LowRank) -> bool:
    """Whether the layer's input is as wide as a text state."""
    return bool(re.search(r"attn2\.to_[kv]$" if layer.part == "unet" else r"\.to_(q|k|v|out)$|\.fc1$", layer.name))


def shared(layers: list[LowRank]) -> tuple[str, str]:
    """(rank, alpha) of all the layers."""
    ranks = {len(layer.down) for layer in layers}
    alphas = {f"{layer.scale * len(layer.down):g}" for layer in layers}
    return tuple(str(*values) if len(values) == 1 else "Dynamic" for values in (ranks, alphas))


def diffusers(layers: list[LowRank], target: Path, dtype) -> None:
    check_ending(target, (".safetensors",))
    infix, tensors = {"unet": "lora", "text": "lora_linear_layer"}, {}
    for layer in layers:
        stem = f"{DIFFUSERS[layer.part]}{published(layer.part, layer.name)}.{infix[layer.part]}"
        up = (layer.scale * layer.up.float()).to(layer.up.dtype)
        tensors |= {f"{stem}.down.weight": layer.down, f"{stem}.up.weight": up}
    safe.write(target, tensors, {"format": "pt"}, dtype)


def learned_embeds(word: tuple[str, Tensor], target: Path, dtype) -> None:
    check_ending(target, (".safetensors",))
    safe.write(target, dict([word]), {"format": "pt"}, dtype)


def a1111_embedding(word: tuple[str, Tensor], target: Path, dtype) -> None:
    check_ending(target, (".pt",))
    token, rows = word
    content = {
        "string_to_token": {"*": 265}, "string_to_param": {"*": rows.to(dtype or rows.dtype).clone()}, "name": token,
        "step": 0, "sd_checkpoint": None, "sd_checkpoint_name": None,
    }  # fmt: skip
    with replacing(target) as file:  # 265 is "*" in CLIP's vocabulary
        torch.save(content, file)


LAYOUTS = {
    "kohya": kohya, "lora-diffusers": diffusers, "learned-embeds": learned_embeds, "a1111-embedding": a1111_embedding,
}  # fmt: skip

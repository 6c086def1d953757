"""Adapter files of this package for other tools, as python -m weights.convert RUN/adapter.safetensors TARGET --layout

    kohya               LoRA, DoRA and LoKr for A1111, ComfyUI and most others, .safetensors, LoKr in LyCORIS' names;
                        diffusers ignores its DoRA. Of Stable Diffusion XL it has the original's names, which older
                        tools want
    lora-diffusers      one for diffusers' load_lora_weights, .safetensors; alpha / r is in B, where none can miss it
    learned-embeds      a learned word for diffusers' load_textual_inversion, .safetensors; of XL the rows clip_l and
                        clip_g, which A1111 and ComfyUI read too and call by the name of the file
    a1111-embedding     a learned word of Stable Diffusion 1 or 2 for A1111 and ComfyUI, .pt, which is called there by
                        the name of the file

These files hold LoRA, DoRA, LoKr and words only: an adapter file that trained anything else is refused. A DoRA needs
its base: the files hold the norms m = g |W|, an adapter file of this package holds g.
"""

import json
import re
import warnings
from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor

import adapters
from adapters.methods.low_rank.lora import ATTENTION
from adapters.methods.low_rank.plus import scale_of
from border import checked
from data.output.atomic import replacing
from unet import TextConditioned
from weights.adapter_files.apply import check_base
from weights.adapter_files.lora_names import DIFFUSERS, KOHYA, original, published, underscored
from weights.adapter_files.native import fingerprint, load_adapter
from weights.formats import safe
from weights.layouts.renames import Size
from weights.models.load_sd import load_sd
from weights.models.save import check_ending

LAYOUTS = ("kohya", "lora-diffusers", "learned-embeds", "a1111-embedding")
TENSORS = {"lora": ("down", "up"), "dora": ("down", "up", "gain")}  # of one layer in an adapter file, after "lora_"
LOKR = re.compile(r"\.(lokr_w[12](?:_[ab])?)$")
ROWS = {  # where a learned word lies in an adapter file -> its name in an embedding file of XL
    "text.token_embedding.token_rows": "",
    "text.first.token_embedding.token_rows": "clip_l",
    "text.second.token_embedding.token_rows": "clip_g",
}
VERSIONS = {
    768: {"ss_v2": "False", "ss_base_model_version": "sd_v1"},  # by the width of the text states
    1024: {"ss_v2": "True", "ss_base_model_version": "sd_v2"},
    2048: {
        "ss_v2": "False",
        "ss_base_model_version": "sdxl_base_v1-0",
        "modelspec.architecture": "stable-diffusion-xl-v1-base/lora",
    },
}


class LowRank(NamedTuple):
    """scale B A of one layer, and the norms of DoRA."""

    part: str  # "unet" or "text", of XL "text.first" or "text.second"
    name: str  # ours within the part
    down: Tensor  # A (r, in[, k, k])
    up: Tensor  # B (out, r[, 1, 1])
    scale: float  # alpha / r
    norms: Tensor | None = None  # m (out,) of DoRA

    @property
    def inputs(self) -> int:
        """How many the layer has."""
        return self.down.shape[1]


class Kronecker(NamedTuple):
    """scale w1 (x) w2 of one layer."""

    part: str
    name: str
    factors: dict[str, Tensor]  # "lokr_w1": tensor, ...; the kernel of "lokr_w2_b" in its columns, as LyCORIS has it
    scale: float

    @property
    def rank(self) -> int | None:
        """r, None for a whole w2."""
        return len(self.factors["lokr_w2_b"]) if "lokr_w2_b" in self.factors else None

    @property
    def inputs(self) -> int:
        """How many the layer has, if it is a Linear."""
        return self.factors["lokr_w1"].shape[1] * self.factors["lokr_w2" if self.rank is None else "lokr_w2_b"].shape[1]


def export_adapter(source: str | Path, target: str | Path, layout: str, dtype: torch.dtype | None = None) -> None:
    """Write an adapter file of a text recipe, `source`, to `target` in one of LAYOUTS; dtype converts its tensors.

    Warns where the source holds LoRA and a word, of which the layout holds one. Raises ValueError for a source with
    other methods, one of a DiT, and one that lacks what the layout holds.
    """
    tensors, header = load_adapter(source)
    model = header["base"].get("model")
    if model not in ("TextConditioned", "UNet"):
        raise ValueError(f"{source}: {layout} is for a Stable Diffusion, found an adapter of a {model}")
    if model == "UNet":
        tensors = {f"unet.{name}": tensor for name, tensor in tensors.items()}
        header = header | {"adapter": [f"unet.{spec}" for spec in header["adapter"]]}
    words, rest = layout in ("learned-embeds", "a1111-embedding"), tensors.keys() - ROWS.keys()
    size = size_of_xl(header, source)
    if rest if words else tensors.keys() & ROWS.keys():
        other = f"the {len(rest)} other tensors" if words else f"the learned {' and '.join(header['tokens'] or {})}"
        warnings.warn(f"{source}: {layout} does not hold {other}, which were trained together with it", stacklevel=2)
    if words:
        token, rows = word_of(tensors, header, source)
    else:
        kron = {name: tensor for name, tensor in tensors.items() if LOKR.search(name)}
        rest = {name: tensor for name, tensor in tensors.items() if name not in kron}
        layers = low_rank(rest, header, source, layout) if rest.keys() - ROWS.keys() or not kron else []
        products = kronecker(kron, header, source, layout)
    check_ending(target, (".pt",) if layout == "a1111-embedding" else (".safetensors",))
    if layout == "a1111-embedding" and "" not in rows:
        raise ValueError(f"{source}: a word of Stable Diffusion XL, which A1111 reads as learned-embeds writes it")
    if layout == "kohya":
        written = kohya_tensors(layers, size) | lycoris_tensors(products, size)
        safe.write(target, written, kohya_metadata(layers, products, size is not None), dtype)
    elif layout == "lora-diffusers":
        safe.write(target, diffusers_tensors(layers, source), {"format": "pt"}, dtype)
    elif layout == "learned-embeds":
        safe.write(target, {name or token: tensor for name, tensor in rows.items()}, {"format": "pt"}, dtype)
    else:
        with replacing(target) as file:
            torch.save(a1111_content(token, rows[""].to(dtype or rows[""].dtype).clone()), file)


def size_of_xl(header: dict, source: str | Path) -> Size:
    """`size_of` the UNet of the base, if that is a Stable Diffusion XL; None for any other."""
    config = header["base"].get("config") or {}
    pooled, layers, text = (config.get(f"unet {name}", config.get(name)) for name in ("pooled", "layers", "text"))
    if not pooled:
        return None
    where = f"{source}: the UNet of its base"
    return checked(layers, int, f"{where}: layers", 1, 100), checked(text, tuple[int, ...], f"{where}: text", 0, 1000)


def low_rank(tensors: dict[str, Tensor], header: dict, source: str | Path, layout: str) -> list[LowRank]:
    """The LoRA and DoRA layers of an adapter file. A spec's targets select its layers, and alpha is in the spec."""
    stems = {
        name.removesuffix(f".{method}_down"): method
        for method in TENSORS
        for name in tensors
        if name.endswith(f".{method}_down")
    }
    known = {f"{stem}.{method}_{half}" for stem, method in stems.items() for half in TENSORS[method]}
    odd = sorted(tensors.keys() - known - ROWS.keys())
    if odd or not stems:
        specs, found = ", ".join(header["adapter"]), f"{len(odd)} other tensors ({odd[0]}, ...)" if odd else "none"
        raise ValueError(f"{source}: {layout} holds one LoRA or DoRA a layer, found {found}, trained by {specs}")
    options = options_of(stems, header, source)
    scales = {}
    for stem, method in stems.items():
        rank = len(tensors[f"{stem}.{method}_down"])
        scales[stem] = scale_of(rank, options[stem].get("alpha", rank), options[stem].get("stable", 0))
    gains = {stem: tensors[f"{stem}.dora_gain"] for stem, method in stems.items() if method == "dora"}
    norms = norms_of(gains, header, source, layout) if gains else {}
    return [
        LowRank(
            *parted(stem), *(tensors[f"{stem}.{of}_{half}"] for half in TENSORS["lora"]), scales[stem], norms.get(stem)
        )
        for stem, of in stems.items()
    ]


def kronecker(tensors: dict[str, Tensor], header: dict, source: str | Path, layout: str) -> list[Kronecker]:
    """The LoKr layers of an adapter file."""
    if tensors and layout != "kohya":
        raise ValueError(f"{source}: {layout} holds LoRA and DoRA, and a LoKr is written by --layout kohya")
    factors = {}
    for name, tensor in tensors.items():
        flat = tensor.flatten(1) if name.endswith("_b") else tensor
        factors.setdefault(LOKR.sub("", name), {})[LOKR.search(name)[1]] = flat
    options = options_of(dict.fromkeys(factors, "lokr"), header, source)
    layers = [Kronecker(*parted(stem), parts, 1.0) for stem, parts in factors.items()]
    alphas = [options[stem].get("alpha", layer.rank) for stem, layer in zip(factors, layers)]
    return [layer if layer.rank is None else layer._replace(scale=a / layer.rank) for layer, a in zip(layers, alphas)]


def options_of(stems: dict[str, str], header: dict, source: str | Path) -> dict[str, dict]:
    """The options of the spec that is for each layer, by {layer: method}."""
    options = {}
    for spec in header["adapter"]:
        part, rest = adapters.split(spec)
        method, given = adapters.parse(rest)
        inside = [stem for stem in stems if stem.startswith(f"{part}.")] if part else stems
        for stem in [stem for stem in inside if stems[stem] == method]:
            if re.search(given.get("targets", ATTENTION), stem.removeprefix(f"{part}." if part else "")):
                options[stem] = given
    unclaimed = [stem for stem in stems if stem not in options]
    if unclaimed:
        raise ValueError(f"{source}: {unclaimed[0]} has a LoRA that none of its specs is for: {header['adapter']}")
    return options


def parted(stem: str) -> tuple[str, str]:
    """ "text.first.layers.0.attn.to_q" -> ("text.first", "layers.0.attn.to_q"): the longest part that begins it."""
    part = max((part for part in KOHYA if stem.startswith(f"{part}.")), key=len)
    return part, stem.removeprefix(f"{part}.")


def norms_of(gains: dict[str, Tensor], header: dict, source: str | Path, layout: str) -> dict[str, Tensor]:
    """m = g |W| of each layer, with W of the base of the adapter file's run."""
    name = (header["config"] or {}).get("model") or "new:"
    checked(name, str, f"{source}: model in its header")
    if name.startswith("new:"):
        raise ValueError(f"{source}: {layout} holds norms of the base's weights for DoRA, found no base in its header")
    sd = load_sd(name, dtype=torch.float32, ema=False)
    model = TextConditioned(sd.unet, sd.text)
    check_base(source, header["base"], fingerprint(sd.unet if header["base"].get("model") == "UNet" else model))
    weights = {stem: model.get_parameter(f"{stem}.weight").detach().flatten(1) for stem in gains}
    return {stem: gain.float() * torch.linalg.vector_norm(weights[stem], dim=1) for stem, gain in gains.items()}


def word_of(tensors: dict[str, Tensor], header: dict, source: str | Path) -> tuple[str, dict[str, Tensor]]:
    """(token, {name in XL's files: rows (n, D)}) of an adapter file with one learned word."""
    words, rows = header["tokens"] or {}, {name: tensors[key] for key, name in ROWS.items() if key in tensors}
    if not rows or len(words) != 1:
        raise ValueError(f"{source}: an embedding file holds one learned word, found {', '.join(words) or 'none'}")
    return next(iter(words)), rows


def kohya_tensors(layers: list[LowRank], xl: Size) -> dict[str, Tensor]:
    """xl: `size_of` the UNet of an XL, whose names are the original's."""
    tensors = {}
    for layer in layers:
        stem = kohya_stem(layer, xl)
        alpha = torch.tensor(layer.scale * len(layer.down))
        tensors |= {f"{stem}.lora_down.weight": layer.down, f"{stem}.lora_up.weight": layer.up, f"{stem}.alpha": alpha}
        if layer.norms is not None:
            tensors[f"{stem}.dora_scale"] = layer.norms.view(-1, *(1 for _ in layer.down.shape[1:]))  # (out, 1[, 1, 1])
    return tensors


def kohya_stem(layer: LowRank | Kronecker, xl: Size) -> str:
    """ "lora_unet_mid_block_...": what the names of a layer's tensors begin with."""
    of_unet = xl is not None and layer.part == "unet"
    name = original(xl, layer.name) if of_unet else published(layer.part, layer.name)
    return KOHYA[layer.part] + underscored(name)


def lycoris_tensors(layers: list[Kronecker], xl: Size) -> dict[str, Tensor]:
    """As LyCORIS names them. alpha counts where w2 has a rank; a whole one is not scaled, whatever alpha is."""
    tensors = {}
    for layer in layers:
        stem = kohya_stem(layer, xl)
        tensors |= {f"{stem}.{role}": factor for role, factor in layer.factors.items()}
        tensors[f"{stem}.alpha"] = torch.tensor(layer.scale * (layer.rank or 1))
    return tensors


def kohya_metadata(layers: list[LowRank], products: list[Kronecker], xl: bool) -> dict[str, str]:
    """What A1111 and others read: rank, alpha, and the version of the base where the widths show it.

    Different ranks or alphas are "Dynamic", as in kohya's own files; a tool takes them from the tensors.
    """
    widths = {layer.inputs for layer in (*layers, *products) if reads_text(layer)}
    version = VERSIONS[2048] if xl else VERSIONS.get(widths.pop(), {}) if len(widths) == 1 else {}
    if products:
        algo = {"ss_network_module": "lycoris.kohya", "ss_network_args": json.dumps({"algo": "lokr"})}
        return {"format": "pt"} | algo | version
    small = [layer for layer in layers if layer.down.shape[2:].numel() == 1]
    large = [layer for layer in layers if layer.down.shape[2:].numel() > 1]
    rank, alpha = shared(small or large)
    of_convolutions = dict(zip(("conv_dim", "conv_alpha"), shared(large))) if large else {}
    return {
        "format": "pt",
        "ss_network_module": "networks.lora",
        "ss_network_dim": rank,
        "ss_network_alpha": alpha,
        "ss_network_args": json.dumps(of_convolutions),
    } | version


def reads_text(layer: LowRank | Kronecker) -> bool:
    """Whether the layer's input is as wide as a text state."""
    return bool(re.search(r"attn2\.to_[kv]$" if layer.part == "unet" else r"\.to_(q|k|v|out)$|\.fc1$", layer.name))


def shared(layers: list[LowRank]) -> tuple[str, str]:
    """(rank, alpha) of all the layers."""
    ranks = {len(layer.down) for layer in layers}
    alphas = {f"{layer.scale * len(layer.down):g}" for layer in layers}
    return tuple(str(*values) if len(values) == 1 else "Dynamic" for values in (ranks, alphas))


def diffusers_tensors(layers: list[LowRank], source: str | Path) -> dict[str, Tensor]:
    tensors = {}
    if len({(layer.part, layer.norms is None) for layer in layers}) > len({layer.part for layer in layers}):
        raise ValueError(f"{source}: lora-diffusers holds LoRA or DoRA for a whole part, found both in one")
    for layer in layers:
        stem = f"{DIFFUSERS[layer.part]}{published(layer.part, layer.name)}"
        up = (layer.scale * layer.up.float()).to(layer.up.dtype)
        halves = f"{stem}.{'lora' if layer.part == 'unet' else 'lora_linear_layer'}"
        tensors |= {f"{halves}.down.weight": layer.down, f"{halves}.up.weight": up}
        if layer.norms is not None:
            norms = layer.norms if layer.down.dim() == 2 else layer.norms.view(1, -1, 1, 1)
            tensors[f"{stem}.lora_magnitude_vector.weight"] = norms
    return tensors


def a1111_content(token: str, rows: Tensor) -> dict:
    return {
        "string_to_token": {"*": 265},  # the id of "*" in CLIP's vocabulary
        "string_to_param": {"*": rows},
        "name": token,
        "step": 0,
        "sd_checkpoint": None,
        "sd_checkpoint_name": None,
    }

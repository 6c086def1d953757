"""Configs of our models: from the shapes of a file's tensors, and from config.json what shapes do not tell.

measure_x(tensors) finds the size on which the renames of a layout depend (weights/layouts/exchange.py), infer_x(...)
the fields of the config. Both know all layouts of one kind of model. `given` are the caller's overrides; they win.
"""

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor

from border import checked
from dit import SIZES
from unet import VAEConfig
from unet.row import SINUSOID, SIZE_NUMBERS
from unet.sizes import TEXT_ENCODERS, UNETS
from weights.layouts.diffusers_json import check_fixed
from weights.layouts.exchange import LAYOUTS, Layout, file_names
from weights.layouts.families import check_family
from weights.layouts.renames import Size

HEADS = {(size["width"], size["depth"]): size["heads"] for size in SIZES.values()}
LARGEST = 2**20  # of a number in a config: rows of a table, channels, a side
SDXL = 0.13025  # scaling factor of Stable Diffusion XL's VAE, whose shapes are those of the first
KNOWN_UNETS = {(size.channels, size.text_width): size for size in (UNETS[name] for name in ("SD-1", "SD-2", "SDXL"))}
KNOWN_TEXT_ENCODERS = {
    size.width: size for size in (TEXT_ENCODERS[name] for name in ("CLIP-L", "OpenCLIP-H", "OpenCLIP-bigG"))
}
IN_SD, IN_CONTROL = "model.diffusion_model.", "control_model."


def numbers(tensors: dict[str, Tensor], pattern: str) -> set[int]:
    """The distinct values of the pattern's number among the names."""
    return {int(match[1]) for name in tensors if (match := re.match(pattern, name))}


def measure_dit(tensors: dict[str, Tensor]) -> int:
    """Blocks."""
    return max(numbers(tensors, r"(?:transformer_)?blocks\.(\d+)\."), default=-1) + 1


def measure_vae(tensors: dict[str, Tensor]) -> int:
    """Levels."""
    return max(numbers(tensors, r"(?:first_stage_model\.)?encoder\.down(?:_blocks)?\.(\d+)\."), default=-1) + 1


def measure_unet(tensors: dict[str, Tensor]) -> tuple[int, tuple[int, ...]]:
    """(residual blocks a level, for each level the transformer blocks after each of them)."""

    def depth(transformer: str) -> int:
        return len(numbers(tensors, rf"{transformer}\.transformer_blocks\.(\d+)\."))

    if not any(name.startswith(IN_SD) for name in tensors):
        levels = len(numbers(tensors, r"down(?:_blocks)?\.(\d+)\."))
        layers = len(numbers(tensors, r"down(?:_blocks)?\.0\.resnets\.(\d+)\."))
        first = [rf"down(?:_blocks)?\.{level}\.attentions\.0" for level in range(max(levels, 1))]
        return layers, tuple(map(depth, first))
    blocks = re.escape(IN_SD) + r"input_blocks\."
    downsamplings = numbers(tensors, blocks + r"(\d+)\.0\.op\.weight$")
    rows = min(downsamplings, default=len(numbers(tensors, blocks + r"(\d+)\.")))
    first = [rf"{blocks}{1 + level * rows}\.1" for level in range(len(downsamplings) + 1)]
    return rows - 1, tuple(map(depth, first))


def control_part(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    """The ControlNet of a file that may hold its Stable Diffusion too, its names without their prefix."""
    own = {name.removeprefix(IN_CONTROL): tensors[name] for name in tensors if name.startswith(IN_CONTROL)}
    return own or tensors


def measure_controlnet(tensors: dict[str, Tensor]) -> tuple[int, tuple[int, ...], int]:
    """(residual blocks a level, transformer blocks after them on each level, widths of the hint's encoder)."""
    own = control_part(tensors)
    reads = [name for name in own if re.match(r"(hint|controlnet_cond_embedding|input_hint_block)\..*weight$", name)]
    original = "input_hint_block.0.weight" in own
    return *measure_unet({IN_SD + name: own[name] for name in own} if original else own), len(reads) // 2


def measure_text(tensors: dict[str, Tensor]) -> int:
    """Layers that run: of Stable Diffusion 2's OpenCLIP all but the last, unless the file leaves the last one out."""
    blocks = numbers(tensors, r"(?:cond_stage_model|conditioner\.embedders\.0)\.model\.transformer\.resblocks\.(\d+)\.")
    if blocks:
        full = KNOWN_TEXT_ENCODERS[1024]
        widths = {tensors[name].shape[-1:] for name in tensors if name.endswith(".model.token_embedding.weight")}
        return len(blocks) - (len(blocks) != full.layers or widths != {(full.width,)})
    if blocks := numbers(tensors, r"transformer\.resblocks\.(\d+)\."):  # XL's second, whose last layer is pooled
        return len(blocks)
    inside = r"(?:cond_stage_model\.transformer\.)?(?:text_model\.){0,2}(?:encoder\.)?layers\.(\d+)\."
    return len(numbers(tensors, inside))


def shapes_of(tensors: dict[str, Tensor], layout: Layout, size: Size, source: str | Path) -> Callable:
    """A function shape(our name) -> the shape of the file's tensor that holds it. ValueError if there is none, or if it
    holds no number, or has not the number `dims` of dimensions.
    """

    def shape(name: str, dims: int = 0) -> torch.Size:
        key, _, transposed = file_names(name, layout, size)[0].partition("#")
        if key not in tensors:
            raise ValueError(f"{source}: expected {key}, which tells the model's shape, found no such tensor")
        found = tensors[key].shape
        if not len(found) or 0 in found or dims and len(found) != dims:
            wanted = f"{dims} dimensions" if dims else "numbers"
            raise ValueError(f"{source}: expected {key} with {wanted}, found shape {list(found)}")
        return found[::-1] if transposed == "T" else found

    return shape


class Source(NamedTuple):
    """What a config is inferred from: a file's tensors in one layout, and what stands beside them."""

    layout: Layout
    tensors: dict[str, Tensor]
    metadata: dict
    size: Size  # as measure_x found it
    given: dict  # the caller's fields, which win
    path: str | Path  # named in errors

    @property
    def config(self) -> dict:
        """The config.json of a diffusers folder, {} for any other file."""
        return self.metadata.get("config", {})

    def stored(self, name: str, kind: Any, default: Any = None, config: dict | None = None) -> Any:
        """A field of config.json, by default of the whole; the default where it is absent. ValueError for another type
        and for a number below 0 or above LARGEST."""
        config = self.config if config is None else config
        return checked(config.get(name, default), kind, f"{self.path}: {name} in its config.json", 0, LARGEST)

    @property
    def args(self) -> dict:
        """The fields of a training checkpoint's arguments that tell of the model: its size's name, its classes."""
        args = self.metadata.get("args", {})
        kinds = {"model": str | None, "num_classes": int | None}
        return {
            name: checked(args.get(name), kind, f"{self.path}: {name} of its training arguments", 0, LARGEST)
            for name, kind in kinds.items()
            if args.get(name) is not None
        }

    def shape(self, name: str, dims: int = 0) -> torch.Size:
        """The shape of our tensor `name` in the file; ValueError if it is not there, or has not `dims` dimensions."""
        return shapes_of(self.tensors, self.layout, self.size, self.path)(name, dims)


def infer_dit(source: Source) -> dict:
    """A DiT's config; heads from `given`, config.json, the training args or the preset of that size."""
    shape, given, args = source.shape, source.given, source.args
    width, channels, patch, _ = shape("x_embedder.proj.weight", 4)
    out = shape("final_layer.linear.weight")[0] // patch**2
    rows = shape("y_embedder.embedding_table.weight")[0]
    classes = given.get("num_classes", args.get("num_classes", source.stored("num_embeds_ada_norm", int | None)))
    classes = rows - 1 if classes is None else classes
    if rows - classes not in (0, 1):
        raise ValueError(f"{source.path}: expected {classes} class rows, or one more for the null class, found {rows}")
    of_size = SIZES.get(args.get("model"), {}).get("heads")
    heads = given.get("heads", source.stored("num_attention_heads", int | None, of_size))
    heads = heads or HEADS.get((width, source.size))
    if not heads:
        raise ValueError(f"{source.path}: width {width} and depth {source.size} are no published size, so give heads=")
    side = source.stored("sample_size", int | None)
    if "pos_embed" in source.tensors and source.tensors["pos_embed"].dim() == 3:
        side = patch * round(source.tensors["pos_embed"].shape[1] ** 0.5)
    side = given.get("input_size", side)
    if not side:
        raise ValueError(
            f"{source.path}: neither pos_embed nor a config.json tells the latent's side, so give input_size="
        )
    return dict(
        depth=source.size,
        width=width,
        heads=heads,
        patch=patch,
        input_size=side,
        in_channels=channels,
        num_classes=classes,
        class_dropout=0.1 * (rows - classes),
        learn_sigma=out == 2 * channels,
        mlp_ratio=shape("blocks.0.mlp.fc1.weight")[0] / width,
    )


def infer_vae(source: Source) -> dict:
    """A VAE's config; groups and scale from `given`, config.json, the file or Stable Diffusion's values."""
    shape, tensors = source.shape, source.tensors
    check_fixed("vae", source.config, source.path)
    channels_in = shape("encoder.conv_in.weight", 4)[1]
    layers = 0
    while file_names(f"encoder.down.0.res.{layers}.norm1.weight", source.layout, source.size)[0] in tensors:
        layers += 1
    latents = shape("encoder.conv_out.weight")[0] // 2
    if latents == 16:
        raise ValueError(f"{source.path}: a Stable Diffusion 3 or Flux VAE with 16 latent channels, expected 4")
    channels = tuple(shape(f"encoder.down.{level}.res.0.conv1.weight")[0] for level in range(source.size))
    scale = SDXL if any(name.startswith("conditioner.embedders.1.") for name in tensors) else VAEConfig.scaling_factor
    stored = tensors.get("scale_factor")  # of latent diffusion models that measured config
    if stored is not None and stored.numel() == 1 and abs(stored.item() / scale - 1) > 1e-3:  # float16 rounds by less
        scale = stored.item()
    return dict(
        in_channels=channels_in,
        latent_channels=latents,
        channels=channels,
        layers=layers,
        groups=groups_of(channels, source),
        scaling_factor=source.stored("scaling_factor", float, scale),
    )


def groups_of(channels: tuple[int, ...], source: Source) -> int:
    """Groups of the GroupNorms, 32 unless something says otherwise."""
    groups = source.given.get("groups", source.stored("norm_num_groups", int, 32))
    if groups < 1 or any(width % groups for width in channels):
        raise ValueError(f"{source.path}: channels {channels} are no multiples of {groups} groups, so give groups=")
    return groups


def infer_unet(source: Source) -> dict:
    """A UNet's config; heads, upcast and the latent's side from `given`, config.json or the published size like it."""
    check_family(source.tensors, source.given.get("in_channels"), source.path)
    check_fixed("unet", source.config, source.path)
    return infer_encoder(source) | {"out_channels": source.shape("conv_out.weight")[0]}


def infer_controlnet(source: Source) -> dict:
    """A ControlNet's config: that of its UNet, and the sizes of the hint's encoder."""
    own, shape = control_part(source.tensors), source.shape
    if "difference" in own:
        raise ValueError(f"{source.path}: the differences of a ControlNet from its UNet, expected its own weights")
    check_family(own, source.given.get("in_channels"), source.path)
    check_fixed("controlnet", source.config, source.path)
    fields = infer_encoder(source)
    first, channels = shape("hint.conv_in.weight", 4)[:2]
    wider = [shape(f"hint.blocks.{2 * i + 1}.weight")[0] for i in range(source.size[2] - 1)]
    # nothing shows out_channels, and nothing reads them: those of a UNet that takes no more than latents
    return fields | dict(out_channels=fields["in_channels"], hint_channels=channels, hint_widths=(first, *wider))


def infer_encoder(source: Source) -> dict:
    """The fields that a UNet and a ControlNet share."""
    shape, given, config, (layers, text) = source.shape, source.given, source.config, source.size[:2]
    channels = tuple(shape(f"down.{level}.resnets.0.conv1.weight")[0] for level in range(len(text)))
    text_width = shape("mid.attentions.0.transformer_blocks.0.attn2.to_k.weight")[-1]
    known = KNOWN_UNETS.get((channels, text_width))
    either = int | list[int] | None
    heads = source.stored("num_attention_heads", either)
    heads = heads or source.stored("attention_head_dim", either, 8 if config else None)
    heads = given.get("heads", known.heads if heads is None and known else heads)
    if not heads:
        raise ValueError(
            f"{source.path}: channels {channels} and text width {text_width} are no published size, so give "
            f"heads=, {len(channels)} numbers"
        )
    return dict(
        in_channels=shape("conv_in.weight", 4)[1],
        channels=channels,
        text=text,
        layers=layers,
        heads=(heads,) * len(channels) if isinstance(heads, int) else tuple(heads),
        text_width=text_width,
        pooled=pooled_width(source),
        linear=len(shape("mid.attentions.0.proj_in.weight")) == 2,
        upcast=source.stored("upcast_attention", bool | None, False) or False if config or not known else known.upcast,
        groups=groups_of(channels, source),
        input_size=source.stored("sample_size", int | None) or (known.input_size if known else 64),
    )


def pooled_width(source: Source) -> int:
    """Width of the pooled text that XL's UNet reads beside six sizes; 0 for a UNet that reads neither."""
    (name,) = file_names("vector_embed.0.weight", source.layout, source.size)
    return max(source.tensors[name].shape[-1] - SIZE_NUMBERS * SINUSOID, 0) if name in source.tensors else 0


def infer_text(source: Source) -> dict:
    """A text encoder's config; heads and activation from `given`, config.json or the published size of that width."""
    shape, given = source.shape, source.given
    config = source.stored("text_config", dict[str, Any] | None) or source.config  # a whole CLIP's config.json
    check_fixed("text", config, source.path)
    rows, width = shape("token_embedding.weight", 2)
    known = KNOWN_TEXT_ENCODERS.get(width)
    of_size = known.heads if known else None
    heads = given.get("heads", source.stored("num_attention_heads", int | None, of_size, config))
    if not heads:
        raise ValueError(f"{source.path}: a text encoder of width {width} is no published size, so give heads=")
    openclip = file_names("final_norm.weight", source.layout, source.size)[0].endswith("ln_final.weight")
    activation = "gelu" if openclip or width in (1024, 1280) and not config else "quick_gelu"
    pooled = "CLIPTextModelWithProjection" in source.stored("architectures", list[str], [], config)
    pooled = pooled or source.layout == LAYOUTS["text-openclip"]
    projection = source.shape("text_projection.weight")[0] if pooled else 0
    return dict(
        vocab_size=rows,
        width=width,
        layers=source.size,
        heads=heads,
        max_length=shape("position_embedding.weight")[0],
        activation=source.stored("hidden_act", str, activation, config),
        projection=given.get("projection", projection),
    )

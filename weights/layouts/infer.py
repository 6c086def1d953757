"""Configs of our models: from the shapes of a file's tensors, and from config.json what shapes do not tell.

measure_x(tensors) finds the size on which the renames of a layout depend (weights/layouts/exchange.py), infer_x(...)
the fields of the config. Both know all layouts of one kind of model. `given` are the caller's overrides; they win.
"""

import re
from collections.abc import Callable

from torch import Tensor

from dit import SIZES
from unet import VAEConfig
from unet.model import SIZES as UNETS
from unet.text import SIZES as TOWERS
from weights.layouts.diffusers_json import check_fixed
from weights.layouts.exchange import Layout, file_names
from weights.layouts.families import check_family

HEADS = {(size["width"], size["depth"]): size["heads"] for size in SIZES.values()}
SDXL = 0.13025  # scaling factor of Stable Diffusion XL's VAE, whose shapes are those of the first
KNOWN_UNETS = {(size.channels, size.text_width): size for size in (UNETS["SD-1"], UNETS["SD-2"])}
KNOWN_TOWERS = {size.width: size for size in (TOWERS["CLIP-L"], TOWERS["OpenCLIP-H"])}
IN_SD, IN_CONTROL = "model.diffusion_model.", "control_model."


def numbers(tensors: dict[str, Tensor], pattern: str) -> set[int]:
    """The different values of the pattern's one number among the names."""
    return {int(match[1]) for name in tensors if (match := re.match(pattern, name))}


def measure_dit(tensors: dict[str, Tensor]) -> int:
    """Blocks."""
    return max(numbers(tensors, r"(?:transformer_)?blocks\.(\d+)\."), default=-1) + 1


def measure_vae(tensors: dict[str, Tensor]) -> int:
    """Levels."""
    return max(numbers(tensors, r"(?:first_stage_model\.)?encoder\.down(?:_blocks)?\.(\d+)\."), default=-1) + 1


def measure_unet(tensors: dict[str, Tensor]) -> tuple[int, tuple[bool, ...]]:
    """(residual blocks a level, for each level whether it has transformers)."""
    if not any(name.startswith(IN_SD) for name in tensors):
        levels = len(numbers(tensors, r"down(?:_blocks)?\.(\d+)\."))
        text = numbers(tensors, r"down(?:_blocks)?\.(\d+)\.attentions\.")
        layers = len(numbers(tensors, r"down(?:_blocks)?\.0\.resnets\.(\d+)\."))
        return layers, tuple(level in text for level in range(max(levels, 1)))
    halvings = numbers(tensors, r"model\.diffusion_model\.input_blocks\.(\d+)\.0\.op\.weight$")
    rows = min(halvings, default=len(numbers(tensors, r"model\.diffusion_model\.input_blocks\.(\d+)\.")))
    first = [f"{IN_SD}input_blocks.{1 + level * rows}.1.norm.weight" for level in range(len(halvings) + 1)]
    return rows - 1, tuple(name in tensors for name in first)


def control_part(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    """Of a file that holds a ControlNet beside its Stable Diffusion the ControlNet, its names without their prefix."""
    found = {name.removeprefix(IN_CONTROL): tensors[name] for name in tensors if name.startswith(IN_CONTROL)}
    return found or tensors


def measure_controlnet(tensors: dict[str, Tensor]) -> tuple[int, tuple[bool, ...], int]:
    """(residual blocks a level, for each level whether it has transformers, widths of what reads the hint)."""
    own = control_part(tensors)
    reads = [name for name in own if re.match(r"(hint|controlnet_cond_embedding|input_hint_block)\..*weight$", name)]
    original = "input_hint_block.0.weight" in own
    return *measure_unet({IN_SD + name: own[name] for name in own} if original else own), len(reads) // 2


def measure_text(tensors: dict[str, Tensor]) -> int:
    """Layers that run: of OpenCLIP's all but the last, unless the file has lost its last one already."""
    blocks = numbers(tensors, r"(?:cond_stage_model|conditioner\.embedders\.0)\.model\.transformer\.resblocks\.(\d+)\.")
    if blocks:
        full = KNOWN_TOWERS[1024]
        widths = {tensors[name].shape[-1:] for name in tensors if name.endswith(".model.token_embedding.weight")}
        return len(blocks) - (len(blocks) != full.layers or widths != {(full.width,)})
    inside = r"(?:cond_stage_model\.transformer\.)?(?:text_model\.){0,2}(?:encoder\.)?layers\.(\d+)\."
    return len(numbers(tensors, inside))


def shapes_of(tensors: dict[str, Tensor], layout: Layout, size, source) -> Callable:
    """shape(name) of the file's tensor that holds ours; ValueError if there is none."""

    def shape(name: str):
        names = file_names(name, layout, size)
        if names[0] not in tensors:
            raise ValueError(f"{source}: expected {names[0]}, which tells the model's shape, found no such tensor")
        return tensors[names[0]].shape

    return shape


def infer_dit(layout: Layout, tensors: dict[str, Tensor], metadata: dict, depth: int, given: dict, source) -> dict:
    """A DiT's config; heads from `given`, config.json, the training args or the preset of that size."""
    shape = shapes_of(tensors, layout, depth, source)
    theirs, args = metadata.get("config", {}), metadata.get("args", {})
    width, channels, patch, _ = shape("x_embedder.proj.weight")
    out = shape("final_layer.linear.weight")[0] // patch**2
    rows = shape("y_embedder.embedding_table.weight")[0]
    classes = given.get("num_classes", args.get("num_classes", theirs.get("num_embeds_ada_norm")))
    classes = rows - 1 if classes is None else classes
    if rows - classes not in (0, 1):
        raise ValueError(f"{source}: expected {classes} class rows, or one more for the null class, found {rows}")
    heads = given.get("heads", theirs.get("num_attention_heads", SIZES.get(args.get("model"), {}).get("heads")))
    heads = heads or HEADS.get((width, depth))
    if not heads:
        raise ValueError(f"{source}: width {width} and depth {depth} are no published size, so give heads=")
    side = theirs.get("sample_size")
    if "pos_embed" in tensors:
        side = patch * round(tensors["pos_embed"].shape[1] ** 0.5)
    side = given.get("input_size", side)
    if not side:
        raise ValueError(f"{source}: neither pos_embed nor a config.json tells the latent's side, so give input_size=")
    return dict(
        depth=depth,
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


def infer_vae(layout: Layout, tensors: dict[str, Tensor], metadata: dict, levels: int, given: dict, source) -> dict:
    """A VAE's config; groups and scale from `given`, config.json, the file or Stable Diffusion's values."""
    shape, theirs = shapes_of(tensors, layout, levels, source), metadata.get("config", {})
    check_fixed("vae", theirs, source)
    channels_in = shape("encoder.conv_in.weight")[1]
    layers = 0
    while file_names(f"encoder.down.0.res.{layers}.norm1.weight", layout, levels)[0] in tensors:
        layers += 1
    latents = shape("encoder.conv_out.weight")[0] // 2
    if latents == 16:
        raise ValueError(f"{source}: a Stable Diffusion 3 or Flux VAE with 16 latent channels, expected 4")
    channels = tuple(shape(f"encoder.down.{level}.res.0.conv1.weight")[0] for level in range(levels))
    scale = SDXL if any(name.startswith("conditioner.embedders.1.") for name in tensors) else VAEConfig.scaling_factor
    stored = tensors.get("scale_factor")  # of latent diffusion models that measured theirs
    if stored is not None and stored.numel() == 1 and abs(stored.item() / scale - 1) > 1e-3:  # float16 rounds by less
        scale = stored.item()
    return dict(
        in_channels=channels_in,
        latent_channels=latents,
        channels=channels,
        layers=layers,
        groups=groups_of(channels, theirs, given, source),
        scaling_factor=theirs.get("scaling_factor", scale),
    )


def groups_of(channels: tuple[int, ...], theirs: dict, given: dict, source) -> int:
    """Groups of the GroupNorms, 32 unless something says otherwise."""
    groups = given.get("groups", theirs.get("norm_num_groups", 32))
    if any(width % groups for width in channels):
        raise ValueError(f"{source}: channels {channels} are no multiples of {groups} groups, so give groups=")
    return groups


def infer_unet(layout: Layout, tensors: dict[str, Tensor], metadata: dict, size, given: dict, source) -> dict:
    """A UNet's config; heads, upcast and the latent's side from `given`, config.json or the published size like it."""
    check_family(tensors, given.get("in_channels"), source)
    check_fixed("unet", metadata.get("config", {}), source)
    out = shapes_of(tensors, layout, size, source)("conv_out.weight")[0]
    return infer_descent(layout, tensors, metadata, size, given, source) | {"out_channels": out}


def infer_controlnet(layout: Layout, tensors: dict[str, Tensor], metadata: dict, size, given: dict, source) -> dict:
    """A ControlNet's config, which is that of its UNet and of what reads the hint."""
    own, shape = control_part(tensors), shapes_of(tensors, layout, size, source)
    if "difference" in own:
        raise ValueError(f"{source}: the differences of a ControlNet from its UNet, expected its own weights")
    check_family(own, given.get("in_channels"), source)
    check_fixed("controlnet", metadata.get("config", {}), source)
    fields = infer_descent(layout, tensors, metadata, size, given, source)
    first, channels = shape("hint.conv_in.weight")[:2]
    wider = [shape(f"hint.blocks.{2 * i + 1}.weight")[0] for i in range(size[2] - 1)]
    # nothing shows out_channels, and nothing reads them: those of a UNet that takes no more than latents
    return fields | dict(out_channels=fields["in_channels"], hint_channels=channels, hint_widths=(first, *wider))


def infer_descent(layout: Layout, tensors: dict[str, Tensor], metadata: dict, size, given: dict, source) -> dict:
    """What `infer_unet` and `infer_controlnet` share."""
    theirs, (layers, text) = metadata.get("config", {}), size[:2]
    shape = shapes_of(tensors, layout, size, source)
    channels = tuple(shape(f"down.{level}.resnets.0.conv1.weight")[0] for level in range(len(text)))
    text_width = shape("mid.attentions.0.transformer_blocks.0.attn2.to_k.weight")[-1]
    known = KNOWN_UNETS.get((channels, text_width))
    heads = theirs.get("num_attention_heads") or theirs.get("attention_head_dim", 8 if theirs else None)
    heads = given.get("heads", known.heads if heads is None and known else heads)
    if not heads:
        raise ValueError(
            f"{source}: channels {channels} and text width {text_width} are no published size, so give "
            f"heads=, {len(channels)} numbers"
        )
    return dict(
        in_channels=shape("conv_in.weight")[1],
        channels=channels,
        text=text,
        layers=layers,
        heads=(heads,) * len(channels) if isinstance(heads, int) else tuple(heads),
        text_width=text_width,
        linear=len(shape("mid.attentions.0.proj_in.weight")) == 2,
        upcast=theirs.get("upcast_attention", False) if theirs or not known else known.upcast,
        groups=groups_of(channels, theirs, given, source),
        input_size=theirs.get("sample_size") or 64,
    )


def infer_text(layout: Layout, tensors: dict[str, Tensor], metadata: dict, layers: int, given: dict, source) -> dict:
    """A text encoder's config; heads and activation from `given`, config.json or the published size of that width."""
    shape, theirs = shapes_of(tensors, layout, layers, source), metadata.get("config", {})
    theirs = theirs.get("text_config") or theirs  # a whole CLIP's config.json
    check_fixed("text", theirs, source)
    rows, width = shape("token_embedding.weight")
    known = KNOWN_TOWERS.get(width)
    heads = given.get("heads", theirs.get("num_attention_heads", known.heads if known else None))
    if not heads:
        raise ValueError(f"{source}: a text encoder of width {width} is no published size, so give heads=")
    openclip = file_names("final_norm.weight", layout, layers)[0].endswith("ln_final.weight")
    activation = "gelu" if openclip or width == 1024 and not theirs else "quick_gelu"
    return dict(
        vocab_size=rows,
        width=width,
        layers=layers,
        heads=heads,
        max_length=shape("position_embedding.weight")[0],
        activation=theirs.get("hidden_act", activation),
    )

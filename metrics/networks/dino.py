"""DINO and DINOv2, vision transformers trained on images alone (Caron et al. 2021, arXiv 2104.14294; Oquab et
al. 2023, arXiv 2304.07193).

    image (N, 3, S, S) in [-1, 1] -> bicubic, antialiased, to 256 px -> the middle 224 px -> ViT -> class token (N, D)

It reads files of the original code, their training checkpoints (the teacher alone) and folders of transformers. DINOv2
was trained at 518 px, so its table of positions is resized to 16 x 16 patches. DINOv2 differs by its layer scale, and
its giant by SwiGLU. The same tensors from another training (DeiT, MAE) look like DINO's.
"""

import math
import re
from pathlib import Path

from torch import Tensor

from metrics.networks.build import build_network
from metrics.networks.vit import ViT, ViTConfig, prepare
from weights.layouts.exchange import Layout, file_names
from weights.layouts.infer import numbers, shapes_of

MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
RESIZE, CROP = 256, 224


def original(size: None) -> list[tuple]:
    """Names in the original code, which this package has too."""
    return [(r"^patches\.", "patch_embed.proj.")]


def dinov2(size: None) -> list[tuple]:
    """Names in transformers' Dinov2Model and Dinov2WithRegistersModel, with q, k, v for query, key, value."""
    return [
        (r"^patches\.", "embeddings.patch_embeddings.projection."),
        (r"^pos_embed$", "embeddings.position_embeddings"),
        (r"^(cls|register)_token", r"embeddings.\1_token"),
        (r"^norm\.", "layernorm."),
        (r"^blocks\.", "encoder.layer."),
        (r"\.attn\.qkv\.", ".attention.attention.{part}."),
        (r"\.attn\.proj\.", ".attention.output.dense."),
        (r"\.ls([12])\.gamma", r".layer_scale\1.lambda1"),
        (r"\.w12\.", ".weights_in."),
        (r"\.w3\.", ".weights_out."),
    ]


def dino(size: None) -> list[tuple]:
    """Names in transformers' ViTModel."""
    return dinov2(size) + [
        (r"\.norm1\.", ".layernorm_before."),
        (r"\.norm2\.", ".layernorm_after."),
        (r"\.mlp\.fc1\.", ".intermediate.dense."),
        (r"\.mlp\.fc2\.", ".output.dense."),
    ]


HEADS = r"(dino_|ibot_)?head\.(mlp|last_layer)\."
IGNORE = r"(^|\.)mask_token$|^pooler\."  # used in training only
SIGNS = {  # a name that only this layout has
    "blocks.0.norm1.weight": Layout("vision transformer", original, IGNORE),
    "encoder.layer.0.norm1.weight": Layout("vision transformer", dinov2, IGNORE),
    "encoder.layer.0.layernorm_before.weight": Layout("vision transformer", dino, IGNORE),
}


def normalised(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    """The backbone's tensors alone, under names without chunks of blocks, with q, k, v for query, key, value."""
    backbone = {}
    for name, tensor in tensors.items():
        name = re.sub(r"^(module\.)?(backbone\.)?", "", name)
        name = re.sub(r"^blocks\.\d+\.(\d+)\.", r"blocks.\1.", name)
        name = re.sub(r"\.attention\.([qkv])(uery|ey|alue)\.", r".attention.\1.", name)
        if not re.match(HEADS, name):
            backbone[name] = tensor
    return backbone


def layout_of(tensors: dict[str, Tensor]) -> Layout | None:
    """The layout of `normalised` tensors; None for those of another network."""
    tokens = {"cls_token", "embeddings.cls_token"} & tensors.keys()
    return next((layout for sign, layout in SIGNS.items() if tokens and sign in tensors), None)


def build(tensors: dict[str, Tensor], metadata: dict, source: str | Path) -> ViT:
    """The network of `normalised` tensors. Raises ValueError for tensors that do not fit."""
    layout = layout_of(tensors)
    shape = shapes_of(tensors, layout, None, source)

    def has(name: str) -> bool:
        return file_names(name, layout, None)[0] in tensors

    width, _, patch, _ = shape("patches.weight")
    swiglu = has("blocks.0.mlp.w12.weight")
    config = ViTConfig(
        width,
        len(numbers(tensors, r"(?:blocks|encoder\.layer)\.(\d+)\.")),
        metadata.get("config", {}).get("num_attention_heads", max(1, width // 64)),
        patch,
        math.isqrt(shape("pos_embed")[1]),
        shape(f"blocks.0.mlp.{'w3' if swiglu else 'fc1'}.weight")[int(swiglu)],
        "swiglu" if swiglu else "gelu",
        scaled=has("blocks.0.ls1.gamma"),
        registers=shape("register_tokens")[1] if has("register_tokens") else 0,
    )
    return build_network(lambda: ViT(config), tensors, layout, source)


def features(network: ViT, x: Tensor) -> Tensor:
    """x (N, 3, S, S) in [-1, 1] -> (N, D), of any length."""
    return network(prepare(x, RESIZE, CROP, MEAN, STD))


def name_of(network: ViT) -> str:
    """A name such as "DINOv2 ViT-S/14 with 4 registers"."""
    c = network.config
    return f"DINO{'v2' * c.scaled} {c.name}" + (f" with {c.registers} registers" if c.registers else "")

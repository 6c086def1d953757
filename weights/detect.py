"""Which kind of model a file holds and in which layout, by the names of its tensors alone."""

import json
import re

from torch import Tensor

from weights.configs import ANY, KINDS
from weights.families import describe
from weights.layouts import LAYOUTS

SIGNS = [  # a name that only this layout has -> the layout; of each kind the first that is there decides
    ("first_stage_model.decoder.mid.block_1.norm1.weight", "vae-in-sd"),
    ("model.diffusion_model.output_blocks.0.0.in_layers.0.weight", "unet-in-sd"),
    ("cond_stage_model.transformer.text_model.final_layer_norm.weight", "text-in-sd"),
    ("cond_stage_model.transformer.final_layer_norm.weight", "text-in-sd-bare"),
    ("cond_stage_model.model.ln_final.weight", "text-openclip-in-sd"),
    ("conditioner.embedders.0.model.ln_final.weight", "text-openclip-in-sgm"),
    ("blocks.0.attn.qkv.weight", "dit-official"),
    ("transformer_blocks.0.norm1.emb.class_embedder.embedding_table.weight", "dit-diffusers"),
    ("decoder.mid.block_1.norm1.weight", "vae-compvis"),
    ("decoder.mid_block.attentions.0.query.weight", "vae-diffusers-old"),
    ("decoder.mid_block.attentions.0.to_q.weight", "vae-diffusers"),
    ("decoder.mid.0.norm1.weight", "vae-native"),
    ("up_blocks.0.resnets.0.norm1.weight", "unet-diffusers"),
    ("up.0.resnets.0.norm1.weight", "unet-native"),
    ("control_model.input_hint_block.0.weight", "controlnet-compvis"),
    ("input_hint_block.0.weight", "controlnet-compvis-bare"),
    ("controlnet_cond_embedding.conv_in.weight", "controlnet-diffusers"),
    ("hint.conv_in.weight", "controlnet-native"),
    ("text_model.text_model.embeddings.token_embedding.weight", "text-transformers-double"),
    ("text_model.embeddings.token_embedding.weight", "text-transformers"),
    ("embeddings.token_embedding.weight", "text-transformers-bare"),
    ("token_embedding.weight", "text-native"),
]
NEEDED = {  # else another transformer with the same blocks, OpenCLIP's own file, or a Control-LoRA
    "dit-official": "y_embedder.embedding_table.weight",
    "text-native": "final_norm.weight",
    "controlnet-compvis": "control_model.input_blocks.1.0.in_layers.2.weight",
    "controlnet-compvis-bare": "input_blocks.1.0.in_layers.2.weight",
}
OTHERS = [  # a regex that some tensor name matches -> what such a file is
    (r"(^|[._])lora[._]|\.hada_w|\.lokr_|\.oft_", "a LoRA file, which holds changes to a model and no model"),
    (r"^(string_to_param|emb_params|clip_[lg]$)", "a textual inversion embedding"),
    (r"^(control_model\.|controlnet_|input_hint_block\.)", "a ControlNet"),
    (r"joint_blocks\.|double_blocks\.|single_transformer_blocks\.", "a Stable Diffusion 3 or Flux transformer"),
    (r"^(model\.)?diffusion_model\.", "a Stable Diffusion UNet"),
    (r"^(down_blocks|time_embedding)\.", "a Stable Diffusion UNet in diffusers' names"),
    (r"^(visual\.|vision_model\.)", "a CLIP model"),
    (r"^(text_model|cond_stage_model)\.|^encoder\.layers\.|^embeddings\.", "a CLIP text tower"),
    (r"^Mixed_5b\.", "the Inception network of the FID metric"),
    (r"^lin\d\.model\.", "the linear layers of the LPIPS metric"),
    (r"^features\.\d+\.weight", "a VGG or AlexNet classifier"),
    (r"^cls_token$", "a vision transformer such as DINO"),
    (r"^blocks\.\d+\.|^transformer_blocks\.\d+\.", "another transformer than the class-conditional DiT"),
    (r"^(encoder|decoder)\.", "another autoencoder than Stable Diffusion's"),
]


def detect(tensors: dict[str, Tensor], metadata: dict, source, expect: str | None = None) -> str:
    """The name of the file's layout (weights/layouts.py), of the `expect`ed kind where the file holds several.

    ValueError that says what any other file is.
    """
    header = graft_header(metadata, source)
    wanted = KINDS[expect].words if expect else ANY
    if header.get("kind") == "adapter":
        raise ValueError(f"{source}: an adapter file, expected a whole model (weights.apply_adapters puts it on one)")
    if header.get("kind") == "features":
        raise ValueError(f"{source}: a feature network of the metrics, expected {wanted}")
    found = {header["kind"]: f"{header['kind']}-native"} if header.get("kind") in KINDS else parts(tensors)
    if not found:
        raise ValueError(f"{source}: expected {wanted}, found {other(tensors)}")
    if expect is None and len(found) > 1:
        reads = "load_control reads its ControlNet" if "controlnet" in found else "load_sd reads it"
        raise ValueError(
            f"{source}: a whole Stable Diffusion checkpoint; weights.{reads}, or expect= one of "
            f"{', '.join(found)} the one part"
        )
    if expect not in (None, *found):
        raise ValueError(f"{source}: expected a {expect}, found {', '.join(f'a {kind}' for kind in found)}")
    return found[expect or next(iter(found))]


def parts(tensors: dict[str, Tensor]) -> dict[str, str]:
    """{kind: layout} of every kind of model that the names are a sign of."""
    found = {}
    for sign, layout in SIGNS:
        if sign in tensors and NEEDED.get(layout, sign) in tensors:
            found.setdefault(LAYOUTS[layout].kind, layout)
    return found


def other(tensors: dict[str, Tensor]) -> str:
    """What a file is that holds none of our models, with the name of the tensor that tells."""
    for pattern, what in OTHERS:
        found = [name for name in tensors if re.search(pattern, name)]
        if found:
            return f"{what}{describe(tensors)} ({found[0]}, ...)"
    return f"{len(tensors)} unknown tensors ({', '.join(list(tensors)[:3])}, ...)"


def graft_header(metadata: dict, source) -> dict:
    """What this package wrote into the header of a file of its own; {} for any other file."""
    try:
        header = json.loads(metadata.get("graft", "{}"))
    except (json.JSONDecodeError, RecursionError, TypeError):
        header = None
    if not isinstance(header, dict):
        raise ValueError(f"{source}: the header's `graft` entry is not a JSON object: {str(metadata['graft'])[:60]!r}")
    return header

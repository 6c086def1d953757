"""The kind of model that a file holds, and its layout, by the names of its tensors alone."""

from pathlib import Path

from torch import Tensor

from weights.formats.safe import graft_header
from weights.layouts.exchange import LAYOUTS
from weights.layouts.families import describe_file
from weights.layouts.kinds import ANY, KINDS

SIGNS = [  # a name that only this layout has, the layout; of each kind of model the first sign in the file decides
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
NEEDED = {  # a second name; without it the file is another transformer, OpenCLIP's own file, or a Control-LoRA
    "dit-official": "y_embedder.embedding_table.weight",
    "text-native": "final_norm.weight",
    "controlnet-compvis": "control_model.input_blocks.1.0.in_layers.2.weight",
    "controlnet-compvis-bare": "input_blocks.1.0.in_layers.2.weight",
}


def detect(tensors: dict[str, Tensor], metadata: dict, source: str | Path, expect: str | None = None) -> str:
    """The name of the file's layout (weights/layouts/exchange.py), of the kind `expect` where the file holds several.

    Raises ValueError that says what any other file is.
    """
    header = graft_header(metadata, source)
    wanted = KINDS[expect].words if expect else ANY
    if header.get("kind") == "adapter":
        raise ValueError(f"{source}: an adapter file, expected a whole model (weights.apply_adapters puts it on one)")
    if header.get("kind") == "features":
        raise ValueError(f"{source}: a feature network of the metrics, expected {wanted}")
    layouts = {header["kind"]: f"{header['kind']}-native"} if header.get("kind") in KINDS else layouts_in(tensors)
    if not layouts:
        raise ValueError(f"{source}: expected {wanted}, found {describe_file(tensors)}")
    if expect is None and len(layouts) > 1:
        reads = "load_control reads its ControlNet" if "controlnet" in layouts else "load_sd reads it"
        raise ValueError(
            f"{source}: a whole Stable Diffusion checkpoint; weights.{reads}, or expect= one of "
            f"{', '.join(layouts)} the one part"
        )
    if expect not in (None, *layouts):
        raise ValueError(f"{source}: expected a {expect}, found {', '.join(f'a {kind}' for kind in layouts)}")
    return layouts[expect or next(iter(layouts))]


def layouts_in(tensors: dict[str, Tensor]) -> dict[str, str]:
    """{kind: layout} of every kind of model of which a sign is among the names."""
    layouts = {}
    for sign, layout in SIGNS:
        if sign in tensors and NEEDED.get(layout, sign) in tensors:
            layouts.setdefault(LAYOUTS[layout].kind, layout)
    return layouts

"""The kind of model that a file holds, and its layout, by the names of its tensors alone."""

from pathlib import Path

from torch import Tensor

from weights.formats.safe import graft_header
from weights.layouts.exchange import LAYOUTS
from weights.layouts.families import describe_file
from weights.layouts.kinds import ANY, KINDS

SIGNS = {  # layout: names that only its files have; of each kind of model the first layout in the file decides
    "vae-in-sd": ("first_stage_model.decoder.mid.block_1.norm1.weight",),
    "unet-in-sd": ("model.diffusion_model.output_blocks.0.0.in_layers.0.weight",),
    "text-in-sd": ("cond_stage_model.transformer.text_model.final_layer_norm.weight",),
    "text-in-sd-bare": ("cond_stage_model.transformer.final_layer_norm.weight",),
    "text-openclip-in-sd": ("cond_stage_model.model.ln_final.weight",),
    "text-openclip-in-sgm": ("conditioner.embedders.0.model.ln_final.weight",),
    # another name too: REPA's SiT has one more part, and other transformers have the same blocks
    "dit-repa": ("blocks.0.attn.qkv.weight", "y_embedder.embedding_table.weight", "projectors.0.0.weight"),
    "dit-official": ("blocks.0.attn.qkv.weight", "y_embedder.embedding_table.weight"),
    "dit-diffusers": ("transformer_blocks.0.norm1.emb.class_embedder.embedding_table.weight",),
    "vae-compvis": ("decoder.mid.block_1.norm1.weight",),
    "vae-diffusers-old": ("decoder.mid_block.attentions.0.query.weight",),
    "vae-diffusers": ("decoder.mid_block.attentions.0.to_q.weight",),
    "vae-native": ("decoder.mid.0.norm1.weight",),
    "unet-diffusers": ("up_blocks.0.resnets.0.norm1.weight",),
    "unet-native": ("up.0.resnets.0.norm1.weight",),
    # a second name: a Control-LoRA has the first too
    "controlnet-compvis": (
        "control_model.input_hint_block.0.weight",
        "control_model.input_blocks.1.0.in_layers.2.weight",
    ),
    "controlnet-compvis-bare": ("input_hint_block.0.weight", "input_blocks.1.0.in_layers.2.weight"),
    "controlnet-diffusers": ("controlnet_cond_embedding.conv_in.weight",),
    "controlnet-native": ("hint.conv_in.weight",),
    "text-transformers-double": ("text_model.text_model.embeddings.token_embedding.weight",),
    "text-transformers": ("text_model.embeddings.token_embedding.weight",),
    "text-transformers-bare": ("embeddings.token_embedding.weight",),
    # a second name: OpenCLIP's own file has the first too
    "text-native": ("token_embedding.weight", "final_norm.weight"),
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
    for layout, names in SIGNS.items():
        if all(name in tensors for name in names):
            layouts.setdefault(LAYOUTS[layout].kind, layout)
    return layouts

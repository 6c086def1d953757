"""Which kind of model a file holds and in which layout, by the names of its tensors alone."""

import json
import re

from torch import Tensor

SIGNS = [  # a name that only this layout has -> the layout; the first that is there decides
    ("first_stage_model.decoder.mid.block_1.norm1.weight", "vae-in-sd"),
    ("blocks.0.attn.qkv.weight", "dit-official"),
    ("transformer_blocks.0.norm1.emb.class_embedder.embedding_table.weight", "dit-diffusers"),
    ("decoder.mid.block_1.norm1.weight", "vae-compvis"),
    ("decoder.mid_block.attentions.0.query.weight", "vae-diffusers-old"),
    ("decoder.mid_block.attentions.0.to_q.weight", "vae-diffusers"),
    ("decoder.mid.0.norm1.weight", "vae-native"),
]
NEEDED = {"dit-official": "y_embedder.embedding_table.weight"}  # else another transformer with the same blocks
OTHERS = [  # a regex that some tensor name matches -> what such a file is
    (r"(^|[._])lora[._]|\.hada_w|\.lokr_|\.oft_", "a LoRA file, which holds changes to a model and no model"),
    (r"^(string_to_param|emb_params|clip_[lg]$)", "a textual inversion embedding"),
    (r"^(control_model\.|controlnet_|input_hint_block\.)", "a ControlNet"),
    (r"^(model\.)?diffusion_model\.", "a Stable Diffusion UNet"),
    (r"^(down_blocks|time_embedding)\.", "a Stable Diffusion UNet in diffusers' names"),
    (r"joint_blocks\.|double_blocks\.|single_transformer_blocks\.", "a Stable Diffusion 3 or Flux transformer"),
    (r"^(visual\.|vision_model\.)", "a CLIP model"),
    (r"^(text_model|cond_stage_model)\.|^encoder\.layers\.|^embeddings\.", "a CLIP text tower"),
    (r"^Mixed_5b\.", "the Inception network of the FID metric"),
    (r"^lin\d\.model\.", "the linear layers of the LPIPS metric"),
    (r"^features\.\d+\.weight", "a VGG or AlexNet classifier"),
    (r"^cls_token$", "a vision transformer such as DINO"),
    (r"^blocks\.\d+\.|^transformer_blocks\.\d+\.", "another transformer than the class-conditional DiT"),
    (r"^(encoder|decoder)\.", "another autoencoder than Stable Diffusion's"),
]
BLOCKS = {
    "dit": r"^(?:transformer_)?blocks\.(\d+)\.",
    "vae": r"^(?:first_stage_model\.)?encoder\.down(?:_blocks)?\.(\d+)\.",
}


def detect(tensors: dict[str, Tensor], metadata: dict, source) -> str:
    """The name of the file's layout (weights/layouts.py). ValueError that says what any other file is."""
    header = graft_header(metadata, source)
    if header.get("kind") == "adapter":
        raise ValueError(f"{source}: an adapter file, expected a whole model (weights.apply_adapters puts it on one)")
    if header.get("kind") == "features":
        raise ValueError(f"{source}: a feature network of the metrics, expected a DiT or a VAE")
    if header.get("kind") in ("dit", "vae"):
        return f"{header['kind']}-native"
    for sign, layout in SIGNS:
        if sign in tensors and NEEDED.get(layout, sign) in tensors:
            return layout
    for pattern, what in OTHERS:
        found = [name for name in tensors if re.search(pattern, name)]
        if found:
            what += unet_details(tensors)
            raise ValueError(f"{source}: expected a DiT or a VAE, found {what} ({found[0]}, ...)")
    first = ", ".join(list(tensors)[:3])
    raise ValueError(f"{source}: expected a DiT or a VAE, found {len(tensors)} unknown tensors ({first}, ...)")


def graft_header(metadata: dict, source) -> dict:
    """What this package wrote into the header of a file of its own; {} for any other file."""
    try:
        header = json.loads(metadata.get("graft", "{}"))
    except (json.JSONDecodeError, RecursionError, TypeError):
        header = None
    if not isinstance(header, dict):
        raise ValueError(f"{source}: the header's `graft` entry is not a JSON object: {str(metadata['graft'])[:60]!r}")
    return header


def unet_details(tensors: dict[str, Tensor]) -> str:
    """ " of Stable Diffusion 2 with 9 input channels": what the shapes of a UNet tell, "" for any other file."""
    context = next((tensors[name].shape[-1] for name in tensors if name.endswith("attn2.to_k.weight")), None)
    entry = re.compile(r"(input_blocks\.0\.0|^conv_in)\.weight$")
    first = next((tensors[name] for name in tensors if entry.search(name)), None)
    if context is None or first is None or first.dim() != 4:
        return ""
    family = {768: "1", 1024: "2", 1280: "XL (refiner)", 2048: "XL"}.get(context, f"with context width {context}")
    return f" of Stable Diffusion {family}, {first.shape[1]} input channels"


def count_blocks(tensors: dict[str, Tensor], kind: str) -> int:
    """Blocks of a DiT or levels of a VAE: one more than the highest number in the names."""
    numbers = [int(match[1]) for name in tensors if (match := re.match(BLOCKS[kind], name))]
    return max(numbers, default=-1) + 1

"""What a file is that this package does not read, and which Stable Diffusion a file belongs to: by names and shapes."""

import re
from pathlib import Path

from torch import Tensor, nn

from unet.row import SINUSOID, SIZE_NUMBERS

VERSIONS = {768: "1", 1024: "2", 1280: "XL (refiner)", 2048: "XL"}  # by the width of the text states
XL = r"^conditioner\.embedders\.1\.|\.?add_embedding\.|^(lora_te[12]_|text_encoder_2\.)"  # its signs in a LoRA file
FLUX = r"(double|single)_(transformer_)?blocks[._]"
SD3 = r"joint_blocks[._]|^context_embedder\.|\.attn\.add_q_proj\."
UNREAD = [  # (where it counts, a regex that some tensor name matches, what such a file is); "base": what a LoRA is for
    # "method": adapter files of other methods than LoRA, LoHa and LoKr
    ("method", r"\.[ab][12]\.weight$", "GLoRA"),
    ("method", r"\.on_input$|\.ia3_l(\.|$)", "IA3, which scales activations"),
    ("method", r"\.b?oft_(blocks|diag|r)(\.|$)|\.oft_R\.", "OFT, which rotates the weights"),
    ("method", r"\.lambda_layer$", "T-LoRA, whose rank follows the noise, so that no weights hold it"),
    ("method", r"\.reshape_weight$", "a LoRA that reshapes the weights"),
    ("method", r"^bundle_emb\.", "a LoRA bundled with textual inversion embeddings"),
    ("method", r"^(unet|text_encoder)(:\w+)?:\d+:(up|down)$", "cloneofsimo's LoRA, which numbers the layers"),
    # "file": files in which no model of this package was found
    ("file", r"(^|[._])lora[._]|\.hada_w|\.lokr_|\.oft_", "a LoRA file, which holds changes to a model, no model"),
    ("file", r"^(string_to_param|emb_params|clip_[lg]$)", "a textual inversion embedding"),
    ("file", r"^(control_model\.|controlnet_|input_hint_block\.)", "a ControlNet"),
    ("file base", FLUX, "a Flux transformer"),
    ("file base", SD3, "a Stable Diffusion 3 transformer"),
    ("file", r"^(model\.)?diffusion_model\.", "a Stable Diffusion UNet"),
    ("file", r"^(down_blocks|time_embedding)\.", "a Stable Diffusion UNet in diffusers' names"),
    ("file", r"^(visual\.|vision_model\.)", "a CLIP model"),
    ("file", r"^(text_model|cond_stage_model)\.|^encoder\.layers\.|^embeddings\.", "a CLIP text encoder"),
    ("file", r"^Mixed_5b\.", "the Inception network of the FID metric"),
    ("file", r"^lin\d\.model\.", "the linear layers of the LPIPS metric"),
    ("file", r"^features\.\d+\.weight", "a VGG or AlexNet classifier"),
    ("file", r"^cls_token$", "a vision transformer such as DINO"),
    ("file", r"^blocks\.\d+\.|^transformer_blocks\.\d+\.", "another transformer than the class-conditional DiT"),
    ("file", r"^(encoder|decoder)\.", "another autoencoder than Stable Diffusion's"),
    # "unet": UNets that are not those of Stable Diffusion 1, 2 and XL
    ("unet", r"^control_model\.", "Stable Diffusion beside a ControlNet, which weights.load_control reads"),
    ("base", XL, "Stable Diffusion XL, which has two text encoders"),
    ("unet", r"^depth_model\.", "Stable Diffusion 2's depth-to-image model"),
    ("unet", r"^cc_projection\.", "Zero123, which is conditioned on an image and a camera"),
    ("unet", r"^embedder\.|^noise_augmentor\.", "Stable unCLIP, which is conditioned on an image"),
    ("unet", r"(^|\.)time_embed(ding)?\.cond_proj\.", "a latent consistency model, whose UNet reads a guidance scale"),
]
REFINER = 1280  # its width of text states
BY_CHANNELS = {  # UNets by their input channels
    5: "a depth-to-image model",
    7: "the x4 upscaler",
    8: "an InstructPix2Pix model",
    9: "an inpainting model",
}
LORA = re.compile(r"[._]lora[._]|\.lora_[AB]\.|\.(diff|w_norm)(_b)?$|\.b_norm$|\.(hada|lokr)_w\d")
CROSS = re.compile(r"attn2[._](processor\.)?to_[kv](\.|_lora\.)")  # reads the text states
FIRST = re.compile(r"(self_attn|mlp)\S*(q_proj|to_q|fc1)(\.|_lora\.)")
INPUTS = re.compile(  # the factor of a product, or of LoKr the two, whose columns are a layer's inputs
    r"([._]lora[._]|\.lora_linear_layer\.|\.lora_)(down|A)\b|\.hada_w1_b$|\.lokr_w[12](_b)?$"
)


def unread(tensors: dict[str, Tensor], files: str) -> tuple[str, str] | None:
    """(what the file is, the name that tells it) by the rows of UNREAD for such `files`, None where none matches."""
    for within, pattern, what in UNREAD:
        name = next((name for name in tensors if re.search(pattern, name)), None) if files in within.split() else None
        if name is not None:
            return what, name
    return None


def describe_file(tensors: dict[str, Tensor]) -> str:
    """What a file is that holds none of this package's models, with the name of the tensor that tells it."""
    row = unread(tensors, "file")
    if row is None:
        return f"{len(tensors)} unknown tensors ({', '.join(list(tensors)[:3])}, ...)"
    return f"{row[0]}{describe_unet(tensors)} ({row[1]}, ...)"


def unet_widths(tensors: dict[str, Tensor]) -> tuple[int | None, int | None]:
    """(input channels, width of the text states) of the UNet among the tensors, None where they do not tell."""
    entry = re.compile(r"(input_blocks\.0\.0|^conv_in)\.weight$")
    first = next((tensors[name] for name in tensors if entry.search(name)), None)
    context = next((tensors[name] for name in tensors if name.endswith("attn2.to_k.weight")), None)
    return (
        first.shape[1] if first is not None and first.dim() == 4 else None,
        context.shape[-1] if context is not None and context.dim() else None,
    )


def describe_unet(tensors: dict[str, Tensor]) -> str:
    """ " of Stable Diffusion 2, 9 input channels": what the shapes of a UNet tell, "" for any other file."""
    channels, context = unet_widths(tensors)
    if channels is None or context is None:
        return ""
    family = VERSIONS.get(context, f"with context width {context}")
    return f" of Stable Diffusion {family}, {channels} input channels"


def check_family(tensors: dict[str, Tensor], in_channels: int | None, source: str | Path) -> None:
    """Accept the UNet of a Stable Diffusion 1, 2 or XL that reads text and a latent, or `in_channels` channels.

    Raises ValueError that says what any other UNet is.
    """
    channels, context = unet_widths(tensors)
    row = unread(tensors, "unet")
    if row:
        raise ValueError(f"{source}: {row[0]}; expected Stable Diffusion 1, 2 or XL")
    if context == REFINER:
        raise ValueError(
            f"{source}: Stable Diffusion {VERSIONS[context]}, its UNet reads text states {context} wide; expected 768 "
            "(Stable Diffusion 1), 1024 (2) or 2048 (XL base)"
        )
    version = f"Stable Diffusion {VERSIONS[context]}, " if context in VERSIONS else ""
    if any(re.search(r"(^|\.)(label_emb|class_embedding)\.", name) for name in tensors) and not reads_sizes(tensors):
        what = BY_CHANNELS[7] if channels == 7 else "a model that is also conditioned on a class or an image"
        raise ValueError(
            f"{source}: {version}{what} ({channels} input channels and a class embedding), expected one "
            "that is conditioned on text alone"
        )
    out = next((tensors[n].shape[0] for n in tensors if re.search(r"(\.out\.2|^conv_out)\.weight$", n)), channels)
    if channels not in (in_channels or out, None):
        what = BY_CHANNELS.get(channels, "a model with other inputs than a latent") if out == 4 else "a model"
        what = "a text-to-image model" if channels == out else what
        raise ValueError(
            f"{source}: {version}{what}: {channels} input channels, expected {in_channels or out}; "
            f"in_channels={channels} loads it all the same"
        )


def reads_sizes(tensors: dict[str, Tensor]) -> bool:
    """Whether the UNet reads XL's vector, the pooled text and six sizes: by its width, and that of the text states."""
    first = next(
        (tensors[n] for n in tensors if re.search(r"(label_emb\.0\.0|add_embedding\.linear_1)\.weight$", n)), None
    )
    wide = first is not None and first.dim() == 2 and first.shape[1] > SIZE_NUMBERS * SINUSOID
    return wide and unet_widths(tensors)[1] not in (768, 1024)


def check_lora(tensors: dict[str, Tensor], source: str | Path) -> None:
    """Raise ValueError that says what an adapter file holds other than LoRA, LoHa, LoKr or full differences."""
    row = unread(tensors, "method")
    if row:
        raise ValueError(f"{source}: {row[0]} ({row[1]}, ...), expected a LoRA, LoHa, LoKr or full differences")
    if not any(LORA.search(key) for key in tensors):
        raise ValueError(f"{source}: expected a LoRA, found {describe_file(tensors)}")


def base_of_lora(tensors: dict[str, Tensor], metadata: dict[str, str]) -> str:
    """ "Stable Diffusion XL (sdxl_base_v1-0, say its metadata)": the base that a LoRA file was made for."""
    named = metadata.get("ss_base_model_version") or metadata.get("modelspec.architecture")
    return base_by_tensors(tensors) + (f" ({named}, say its metadata)" if named else "")


def base_by_tensors(tensors: dict[str, Tensor]) -> str:
    row = unread(tensors, "base")
    if row:
        return row[0]
    for pattern, what in ((CROSS, "text states"), (FIRST, "a text encoder")):
        widths = input_widths({key: tensor for key, tensor in tensors.items() if pattern.search(key)})
        if len(widths) == 1:
            return base_by_width(widths.pop(), what)
    return "a base that its names and shapes do not tell"


def input_widths(tensors: dict[str, Tensor]) -> set[int]:
    """How many inputs the layers have that the products are for."""
    widths = {}
    for key, tensor in tensors.items():
        match = INPUTS.search(key)
        if match and tensor.dim() > 1:
            stem = key[: match.start()]
            widths[stem] = widths.get(stem, 1) * tensor.shape[1]
    return set(widths.values())


def base_of_model(model: nn.Module) -> str:
    """ "Stable Diffusion 2", or "the UNet of Stable Diffusion 2" where the model is that alone."""
    unet = getattr(model, "unet", model)
    return f"{'the UNet of ' if unet is model else ''}{base_by_width(unet.config.text_width)}"


def base_by_width(width: int, what: str = "text states") -> str:
    return f"Stable Diffusion {VERSIONS[width]}" if width in VERSIONS else f"a base with {what} {width} wide"

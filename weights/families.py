"""Which Stable Diffusion a UNet belongs to, by names and shapes, and one sentence for each that is not 1 or 2."""

import re

from torch import Tensor

VERSIONS = {768: "1", 1024: "2", 1280: "XL (refiner)", 2048: "XL"}  # by the width of the text states
BY_NAME = [  # a regex that some tensor name matches -> what such a checkpoint is
    (
        r"^control_model\.",
        "a ControlNet together with the Stable Diffusion it was trained on, and weights.load_control reads the first",
    ),
    (r"^conditioner\.embedders\.1\.|\.?add_embedding\.", "Stable Diffusion XL, which has two text towers"),
    (r"^depth_model\.", "Stable Diffusion 2's depth-to-image model"),
    (r"^cc_projection\.", "Zero123, which is conditioned on an image and a camera"),
    (r"^embedder\.|^noise_augmentor\.", "Stable unCLIP, which is conditioned on an image"),
    (r"(^|\.)time_embed(ding)?\.cond_proj\.", "a latent consistency model, whose UNet is told the guidance scale"),
]
BY_CHANNELS = {
    5: "a depth-to-image model",
    7: "the x4 upscaler",
    8: "an InstructPix2Pix model",
    9: "an inpainting model",
}


def facts(tensors: dict[str, Tensor]) -> tuple[int | None, int | None]:
    """(input channels, width of the text states) of the UNet among the tensors, None where they do not tell."""
    entry = re.compile(r"(input_blocks\.0\.0|^conv_in)\.weight$")
    first = next((tensors[name] for name in tensors if entry.search(name)), None)
    context = next((tensors[name] for name in tensors if name.endswith("attn2.to_k.weight")), None)
    return (
        first.shape[1] if first is not None and first.dim() == 4 else None,
        context.shape[-1] if context is not None and context.dim() else None,
    )


def describe(tensors: dict[str, Tensor]) -> str:
    """ " of Stable Diffusion 2, 9 input channels": what the shapes of a UNet tell, "" for any other file."""
    channels, context = facts(tensors)
    if channels is None or context is None:
        return ""
    family = VERSIONS.get(context, f"with context width {context}")
    return f" of Stable Diffusion {family}, {channels} input channels"


def check_family(tensors: dict[str, Tensor], asked: int | None, source) -> None:
    """ValueError saying what the UNet is, unless it takes text and a latent, or the `asked` number of channels."""
    channels, context = facts(tensors)
    for pattern, what in BY_NAME:
        if any(re.search(pattern, name) for name in tensors):
            raise ValueError(f"{source}: {what}; expected Stable Diffusion 1 or 2")
    if context in (1280, 2048):
        raise ValueError(
            f"{source}: Stable Diffusion {VERSIONS[context]}, its UNet reads text states {context} wide; "
            "expected 768 (Stable Diffusion 1) or 1024 (2)"
        )
    labelled = any(re.search(r"(^|\.)(label_emb|class_embedding)\.", name) for name in tensors)
    version = f"Stable Diffusion {VERSIONS[context]}, " if context in VERSIONS else ""
    if labelled:
        what = BY_CHANNELS[7] if channels == 7 else "a model that is also conditioned on a class or an image"
        raise ValueError(
            f"{source}: {version}{what} ({channels} input channels and a class embedding), expected one "
            "that is conditioned on text alone"
        )
    out = next((tensors[n].shape[0] for n in tensors if re.search(r"(\.out\.2|^conv_out)\.weight$", n)), channels)
    if channels not in (asked or out, None):
        what = BY_CHANNELS.get(channels, "a model with other inputs than a latent") if out == 4 else "a model"
        what = "a text-to-image model" if channels == out else what
        raise ValueError(
            f"{source}: {version}{what}: {channels} input channels, expected {asked or out}; "
            f"in_channels={channels} loads it all the same"
        )

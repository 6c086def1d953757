"""How LoRA files spell the layers of Stable Diffusion.

One layer, the last projection of an attention, is in these files

    kohya, A1111      lora_unet_down_blocks_0_attentions_1_transformer_blocks_0_attn2_to_out_0, or, as for Stable
                      Diffusion XL, lora_unet_input_blocks_2_1_transformer_blocks_0_attn2_to_out_0
    diffusers         unet.down_blocks.0.attentions.1.transformer_blocks.0.attn2.to_out.0, until 2023
                      unet.down_blocks.0.attentions.1.transformer_blocks.0.attn2.processor.to_out, or without unet.
    peft              base_model.model.down_blocks.0.attentions.1.transformer_blocks.0.attn2.to_out.0
    ComfyUI           diffusion_model.input_blocks.2.1.transformer_blocks.0.attn2.to_out.0

A name with underscores cannot be split again, so the table is built from the model's own names.
"""

import re
from typing import NamedTuple

from torch import nn

from unet import TextConditioned, UNet
from unet.text.pair import encoders
from weights.layouts.exchange import LAYOUTS, file_names
from weights.layouts.kinds import size_of
from weights.layouts.renames import Size

PUBLISHED = {"unet": "unet-diffusers", "text": "text-transformers"}
ORIGINAL = "model.diffusion_model."  # what a single file has before the original names
# by part; XL has the last two in place of the second
KOHYA = {"unet": "lora_unet_", "text": "lora_te_", "text.first": "lora_te1_", "text.second": "lora_te2_"}
DIFFUSERS = {"unet": "unet.", "text": "text_encoder.", "text.first": "text_encoder.", "text.second": "text_encoder_2."}
PEFT = "base_model.model."


class Place(NamedTuple):
    """A layer of the model."""

    name: str  # ours, for get_submodule
    part: str  # "unet" or "text", of XL "text.first" or "text.second"
    published: str  # diffusers' or transformers' name


def published(part: str, name: str) -> str:
    """ "down.0.downsample" of the unet -> "down_blocks.0.downsamplers.0.conv"; these renames need no size."""
    layout = LAYOUTS[PUBLISHED[part.partition(".")[0]]]
    return file_names(f"{name}.weight", layout, None)[0].removesuffix(".weight")


def original(size: Size, name: str) -> str:
    """ "down.0.downsample" -> "input_blocks.3.0.op". size: `size_of` the UNet's config."""
    (key,) = file_names(f"{name}.weight", LAYOUTS["unet-in-sd"], size)
    return key.removeprefix(ORIGINAL).removesuffix(".weight")


def places(model: nn.Module) -> dict[str, Place]:
    """{spelling: layer} of every layer with weights. ValueError for a model that is no Stable Diffusion."""
    if isinstance(model, TextConditioned):
        texts = {f"text.{start}"[:-1]: encoder for start, encoder in encoders(model.text).items()}
        parts = [("unet", "unet.", model.unet), *((part, f"{part}.", encoder) for part, encoder in texts.items())]
    elif isinstance(model, UNet):
        parts = [("unet", "", model)]
    else:
        raise ValueError(
            f"an adapter file of another tool goes onto a Stable Diffusion, found a {type(model).__name__}"
        )
    table = {}
    for part, prefix, module in parts:
        for name, layer in module.named_modules():
            if isinstance(getattr(layer, "weight", None), nn.Parameter):
                new = published(part, name)
                old = original(size_of(module.config), name) if part == "unet" else ""
                spelled = of_unet(new, old) if part == "unet" else of_text(part, new)
                table |= dict.fromkeys(spelled, Place(prefix + name, part, new))
    return table


def of_unet(name: str, old: str) -> list[str]:
    """All spellings of a layer of the UNet, from diffusers' name and the original one."""
    processor = re.sub(r"\.to_(q|k|v|out)(\.0)?$", r".processor.to_\1", name)
    dotted = [before + word for before in ("", DIFFUSERS["unet"], PEFT) for word in {name, processor}]
    return [*dotted, f"diffusion_model.{old}", *(KOHYA["unet"] + underscored(word) for word in (name, old))]


def of_text(part: str, name: str) -> list[str]:
    """All spellings of a layer of a text encoder, from transformers' name, with text_model. and without it.

    Names that do not say which encoder they are of are the first's.
    """
    words = {name, re.sub(r"\.(q|k|v|out)_proj$", r".to_\1", name)}  # the second until 2023
    words |= {word.removeprefix("text_model.") for word in words}
    own = DIFFUSERS[part]
    starts = (own, own + PEFT) if part == "text.second" else ("", own, own + PEFT, PEFT)
    return [*(before + word for before in starts for word in words), KOHYA[part] + underscored(name)]


def underscored(name: str) -> str:
    return name.replace(".", "_")

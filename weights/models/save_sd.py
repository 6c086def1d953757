"""A whole Stable Diffusion written as a diffusers folder or as one file with the names of the original code."""

from pathlib import Path

import torch
from torch import Tensor, nn

from unet import TextEncoder, TextPair
from unet.text.pair import encoders
from weights.formats import safe
from weights.layouts import scheduler_json
from weights.layouts.diffusers_json import text_json
from weights.layouts.exchange import LAYOUTS, spread
from weights.layouts.kinds import plain_state, size_of
from weights.models.load_sd import TOWERS, StableDiffusion, checked
from weights.models.save import check_ending, export, write_json

POSITIONS = "text_model.embeddings.position_ids"
LOGIT_SCALE = 4.6052  # log 100, the largest value in CLIP's training; no image depends on it
SCALES = {False: 0.18215, True: 0.13025}  # the scaling factor that a single file stands for, and that of XL


def save_sd(pipeline: StableDiffusion, target: str | Path, layout: str, dtype: torch.dtype | None = None) -> None:
    """Write all of `pipeline` to `target`; `dtype` converts the floating tensors.

    layout: "sd-diffusers", the folder that diffusers' StableDiffusionPipeline or StableDiffusionXLPipeline opens,
    without a safety checker; or "sd-compvis", one .safetensors file, which holds no tokenizer. Each file is written in
    one atomic step, and a folder's model_index.json last. Raises ValueError for adapters that are not merged, and for
    what the layout cannot hold.
    """
    if layout not in WRITERS:
        raise ValueError(f"unknown layout {layout!r}, the layouts are {', '.join(WRITERS)}")
    WRITERS[layout](checked(pipeline, target), Path(target), dtype)


def save_folder(pipeline: StableDiffusion, target: Path, dtype: torch.dtype | None) -> None:
    inpainting, xl = pipeline.unet.config.in_channels == 9, isinstance(pipeline.text, TextPair)
    index = {
        "_class_name": f"StableDiffusion{'XL' * xl}{'Inpaint' * inpainting}Pipeline",
        "_diffusers_version": "0.30.0",  # its inpainting pipeline opens no folder without one
        "unet": ["diffusers", "UNet2DConditionModel"],
        "vae": ["diffusers", "AutoencoderKL"],
        "text_encoder": ["transformers", "CLIPTextModel"],
        "tokenizer": ["transformers", "CLIPTokenizer"],
        "scheduler": ["diffusers", "DDIMScheduler"],
        "feature_extractor": [None, None],
        "image_encoder": [None, None],
    }
    if xl:
        index |= {
            "text_encoder_2": ["transformers", "CLIPTextModelWithProjection"],
            "tokenizer_2": ["transformers", "CLIPTokenizer"],
            "force_zeros_for_empty_prompt": True,
        }
    else:
        index |= {"safety_checker": [None, None], "requires_safety_checker": False}
    export(pipeline.unet, target / "unet", "unet-diffusers", dtype)
    export(pipeline.vae, target / "vae", "vae-diffusers", dtype)
    for encoder, place in zip(encoders(pipeline.text).values(), ("text_encoder", "text_encoder_2")):
        export(encoder, target / place, "text-transformers", dtype)
    pipeline.tokenizer.save(target / "tokenizer")
    if xl:
        pipeline.tokenizer.second.save(target / "tokenizer_2")
    write_json(target / "scheduler" / "scheduler_config.json", scheduler_json.to_json(pipeline.schedule))
    write_json(target / "model_index.json", index)


def save_single(pipeline: StableDiffusion, target: Path, dtype: torch.dtype | None) -> None:
    safe.write(target, *in_one_file(pipeline, target), dtype)


def in_one_file(pipeline: StableDiffusion, target: Path) -> tuple[dict[str, Tensor], dict[str, str]]:
    """(tensors, metadata) of a single file, which holds neither the noise schedule nor the scaling factor.

    Raises ValueError, in which `target` is named, for others of the two than Stable Diffusion's.
    """
    check_ending(target, (".safetensors",))
    if not scheduler_json.is_standard(pipeline.schedule):
        raise ValueError(
            f"{target}: sd-compvis stands for Stable Diffusion's noise schedule, found another; sd-diffusers holds any"
        )
    xl = isinstance(pipeline.text, TextPair)
    if pipeline.vae.config.scaling_factor != SCALES[xl]:
        raise ValueError(
            f"{target}: sd-compvis stands for a scaling factor of {SCALES[xl]}, found "
            f"{pipeline.vae.config.scaling_factor}; sd-diffusers holds any"
        )
    tensors = named("unet-in-sd", pipeline.unet) | named("vae-in-sd", pipeline.vae)
    for encoder in encoders(pipeline.text).values():
        text_json(encoder.config)  # refuses one that skips layers, which this layout does not hold either
    if xl:
        version, tensors = "stable-diffusion-xl-v1-base", tensors | in_towers(pipeline.text)
    elif pipeline.text.config.activation == "gelu":
        version, tensors = "stable-diffusion-v2", tensors | named("text-openclip-in-sd", pipeline.text)
        tensors |= unused_openclip(tensors)
    else:
        version, tensors = "stable-diffusion-v1", tensors | named("text-in-sd", pipeline.text)
        tensors["cond_stage_model.transformer." + POSITIONS] = positions(pipeline.text)
    return tensors, {"format": "pt"} | scheduler_json.model_spec(pipeline.schedule, version)


def named(layout: str, model: nn.Module) -> dict[str, Tensor]:
    """The tensors of a model under the names of a layout."""
    return spread(plain_state(model), LAYOUTS[layout], size_of(model.config))


def positions(text: TextEncoder) -> Tensor:
    """The numbers of the positions, on which the original code insists."""
    return torch.arange(text.config.max_length)[None]


def in_towers(text: TextPair) -> dict[str, Tensor]:
    """XL's two text encoders in one file, with the two tensors that its original code requires and does not use."""
    first = named("text-transformers", text.first) | {POSITIONS: positions(text.first)}
    scale = torch.tensor(LOGIT_SCALE, dtype=text.second.token_embedding.weight.dtype)
    second = named("text-openclip", text.second) | {"logit_scale": scale}
    return {prefix + name: tensor for prefix, part in zip(TOWERS, (first, second)) for name, tensor in part.items()}


def unused_openclip(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    """What the original code of Stable Diffusion 2 requires and does not use.

    These are a last block, here a copy of the one before, and the two parameters that compare texts with images.
    """
    before = "cond_stage_model.model."
    table = tensors[before + "positional_embedding"]
    blocks = 1 + max(int(name.split(".")[4]) for name in tensors if name.startswith(before + "transformer.resblocks."))
    last, new = (f"{before}transformer.resblocks.{number}." for number in (blocks - 1, blocks))
    copies = {new + name.removeprefix(last): tensor for name, tensor in tensors.items() if name.startswith(last)}
    eye = torch.eye(table.shape[1], dtype=table.dtype, device=table.device)
    scale = torch.tensor(LOGIT_SCALE, dtype=table.dtype)
    return copies | {before + "text_projection": eye, before + "logit_scale": scale}


WRITERS = {"sd-diffusers": save_folder, "sd-compvis": save_single}

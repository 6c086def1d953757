"""A whole Stable Diffusion written as a diffusers folder or as one file with the names of the original code."""

from pathlib import Path

import torch
from torch import Tensor

from weights.formats import safe
from weights.layouts import scheduler_json
from weights.layouts.diffusers_json import text_json
from weights.layouts.exchange import LAYOUTS, spread
from weights.layouts.kinds import plain_state, size_of
from weights.models.load_sd import StableDiffusion, checked
from weights.models.save import check_ending, export, write_json

LOGIT_SCALE = 4.6052  # log 100, the largest value in CLIP's training; no image depends on it
SCALE = 0.18215  # the scaling factor that a single file stands for


def save_sd(pipeline: StableDiffusion, target: str | Path, layout: str, dtype: torch.dtype | None = None) -> None:
    """Write all of `pipeline` to `target`; `dtype` converts the floating tensors.

    layout: "sd-diffusers", the folder that diffusers' StableDiffusionPipeline opens, without a safety checker; or
    "sd-compvis", one .safetensors file, which holds no tokenizer. Each file is written in one atomic step, and a
    folder's model_index.json last. Raises ValueError for adapters that are not merged, and for what the layout cannot
    hold.
    """
    if layout not in WRITERS:
        raise ValueError(f"unknown layout {layout!r}, the layouts are {', '.join(WRITERS)}")
    WRITERS[layout](checked(pipeline, target), Path(target), dtype)


def save_folder(pipeline: StableDiffusion, target: Path, dtype: torch.dtype | None) -> None:
    inpainting = pipeline.unet.config.in_channels == 9
    index = {
        "_class_name": f"StableDiffusion{'Inpaint' if inpainting else ''}Pipeline",
        "_diffusers_version": "0.30.0",  # its inpainting pipeline opens no folder without one
        "unet": ["diffusers", "UNet2DConditionModel"],
        "vae": ["diffusers", "AutoencoderKL"],
        "text_encoder": ["transformers", "CLIPTextModel"],
        "tokenizer": ["transformers", "CLIPTokenizer"],
        "scheduler": ["diffusers", "DDIMScheduler"],
        "safety_checker": [None, None],
        "feature_extractor": [None, None],
        "image_encoder": [None, None],
        "requires_safety_checker": False,
    }
    export(pipeline.unet, target / "unet", "unet-diffusers", dtype)
    export(pipeline.vae, target / "vae", "vae-diffusers", dtype)
    export(pipeline.text, target / "text_encoder", "text-transformers", dtype)
    pipeline.tokenizer.save(target / "tokenizer")
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
    if pipeline.vae.config.scaling_factor != SCALE:
        raise ValueError(
            f"{target}: sd-compvis stands for a scaling factor of {SCALE}, found "
            f"{pipeline.vae.config.scaling_factor}; sd-diffusers holds any"
        )
    text_json(pipeline.text.config)  # refuses a text encoder that skips layers, which this layout does not hold either
    second = pipeline.text.config.activation == "gelu"
    models = {
        "unet-in-sd": pipeline.unet,
        "vae-in-sd": pipeline.vae,
        "text-openclip-in-sd" if second else "text-in-sd": pipeline.text,
    }
    tensors = {}
    for name, model in models.items():
        tensors |= spread(plain_state(model), LAYOUTS[name], size_of(model.config))
    if second:
        tensors |= unused_openclip(tensors)
    else:  # the original code of Stable Diffusion 1 insists on the numbers of the positions
        positions = torch.arange(pipeline.text.config.max_length)[None]
        tensors["cond_stage_model.transformer.text_model.embeddings.position_ids"] = positions
    return tensors, {"format": "pt"} | scheduler_json.model_spec(pipeline.schedule, second)


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

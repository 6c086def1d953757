"""One model written: a file of this package, a file or folder of a published layout, or a DiT pipeline's folder.

A file of this package is safetensors whose header holds the config, so that one file is a whole model:

    header["graft"] = {"kind": "dit" | "vae" | "unet" | "controlnet" | "text", "config": {...}, "card": {...} or null}

and in that of a flow also "objective": "flow".
"""

import json
import warnings
from dataclasses import asdict
from pathlib import Path

import torch
from torch import Tensor, nn

from data.output.atomic import replacing
from dit.embed import position_table
from sampling import dit_schedule
from weights.formats import safe
from weights.layouts.diffusers_json import CONFIG_JSON, DIT_SCHEDULER
from weights.layouts.exchange import LAYOUTS, ROUNDING, spread
from weights.layouts.kinds import KINDS, kind_of, plain_state, size_of
from weights.layouts.objective import objective_of
from weights.layouts.scheduler_json import betas_json
from weights.models.load import load

FOLDERS = (
    "dit-diffusers",
    "vae-diffusers",
    "vae-diffusers-old",
    "unet-diffusers",
    "controlnet-diffusers",
    "text-transformers",
)
PICKLES = (".pt", ".pth", ".ckpt", ".bin")


def save_model(model: nn.Module, path: str | Path, dtype: torch.dtype | None = None, card: dict | None = None) -> None:
    """Write `model`, of any kind in weights/layouts/kinds.py, without adapters, to `path` (.safetensors) in one step.

    dtype: of the file's floating tensors, None as they are. card: anything worth keeping about the weights (training
    data, command, class names, license), as JSON. Raises ValueError for any other model or with adapters attached.
    """
    graft = {"kind": kind_of(model), "config": asdict(model.config), "card": card}
    graft |= {"objective": "flow"} if is_flow(model) else {}
    safe.write(path, plain_state(model), {"format": "pt", "graft": json.dumps(graft)}, dtype)


def is_flow(model: nn.Module) -> bool:
    """Whether the model is a DiT that predicts a velocity."""
    return getattr(model, "objective", "diffusion") == "flow"


def export(model: nn.Module, target: Path, layout: str, dtype: torch.dtype | None = None) -> None:
    """Write one model: a file, or for diffusers' layouts the folder of one component. ValueError for another kind."""
    config, kind = model.config, kind_of(model)
    if kind != LAYOUTS[layout].kind:
        raise ValueError(f"{layout} holds a {LAYOUTS[layout].kind}, found a {kind}")
    tensors = spread(plain_state(model), LAYOUTS[layout], size_of(config))
    if kind == "dit" and is_flow(model):
        objective_of(model.state_dict(), config, layout, {}, None, target)  # warns if the file will not tell
    if layout in FOLDERS:
        settings = CONFIG_JSON[kind](config)
        if kind == "dit":
            check_positions(model)
        safe.write(target / f"{KINDS[kind].stem}.safetensors", tensors, {"format": "pt"}, dtype)
        write_json(target / "config.json", settings)
        return
    check_ending(target, (".safetensors", *PICKLES))
    if target.suffix == ".safetensors":
        safe.write(target, tensors, {"format": "pt"}, dtype)
        return
    with replacing(target) as file:
        torch.save(
            {name: alone(tensor.detach().to("cpu", dtype or tensor.dtype)) for name, tensor in tensors.items()}, file
        )


def alone(tensor: Tensor) -> Tensor:
    """The same numbers as a tensor whose storage holds nothing else, for torch.save writes the whole of it; no copy."""
    data = tensor.contiguous().reshape(-1).view(torch.uint8).numpy()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of a map that cannot be written, and is not
        flat = torch.frombuffer(data, dtype=tensor.dtype) if len(data) else torch.empty(0, dtype=tensor.dtype)
    return flat.reshape(tensor.shape)


def export_pipeline(
    model: nn.Module,
    target: Path,
    dtype: torch.dtype | None = None,
    vae: nn.Module | str | Path | None = None,
    classes: list[str] | None = None,
) -> None:
    """Write a DiTPipeline's folder. classes: names in the order of their ids; vae: a VAE, or where to load one."""
    if is_flow(model):
        raise ValueError(
            "dit-diffusers is sampled by DiTPipeline, as a diffusion model, and this is a flow: dit-official"
        )
    index = {
        "_class_name": "DiTPipeline",
        "scheduler": ["diffusers", "DDIMScheduler"],
        "transformer": ["diffusers", "DiTTransformer2DModel"],
        "vae": ["diffusers", "AutoencoderKL"],
    }
    if classes is not None:
        index["id2label"] = {str(i): name for i, name in enumerate(classes)}
    export(model, target / "transformer", "dit-diffusers", dtype)
    betas = betas_json(dit_schedule(model.noise_schedule).alpha_bar)
    write_json(target / "scheduler" / "scheduler_config.json", DIT_SCHEDULER | betas)
    if vae is not None:
        export(vae if isinstance(vae, nn.Module) else load(vae, expect="vae"), target / "vae", "vae-diffusers", dtype)
    write_json(target / "model_index.json", index)


def check_positions(model: nn.Module) -> None:
    """Raise ValueError unless the position table is the sinusoid: a layout without a table would lose it."""
    side = model.config.input_size // model.config.patch
    by = (model.pos_embed.float() - position_table(model.config.width, side, side)).abs().max().item()
    if by > ROUNDING.get(model.pos_embed.dtype, ROUNDING[torch.float16]):
        raise ValueError(f"dit-diffusers holds no positions, and this model's differ from the sinusoid by {by:.2g}")


def check_ending(target: str | Path, endings: tuple[str, ...]) -> None:
    if Path(target).suffix not in endings:
        raise ValueError(f"{target}: expected a file name ending in {' or '.join(endings)}")


def write_json(path: Path, content: dict) -> None:
    with replacing(path) as file:
        file.write(json.dumps(content, indent=2, ensure_ascii=False).encode() + b"\n")

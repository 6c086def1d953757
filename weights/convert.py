"""Any layout to any other: python -m weights.convert SOURCE TARGET --layout NAME [--dtype float16] [--vae PATH].

    native              one file of this package, .safetensors
    dit-official        one file with the names of the original DiT, .pt or .safetensors
    dit-diffusers       a folder that diffusers' DiTPipeline opens (its VAE from --vae)
    vae-compvis         one file with the names of the original Stable Diffusion, .pt, .ckpt or .safetensors
    vae-diffusers       a folder that diffusers' AutoencoderKL opens
    vae-diffusers-old   the same with the names of 2022

diffusers' DiT computes its timestep embedding with another divisor (127 for 128) and norm2 with eps 1e-5 for 1e-6: with
equal weights its images differ a little from the original's, and so from this package's.
"""

import argparse
import json
from pathlib import Path

import torch
from torch import nn

from data.atomic import replacing
from dit.embed import position_table
from weights import safe
from weights.configs import SCHEDULER_JSON, dit_json, kind_of, plain_state, size_of, vae_json
from weights.detect import graft_header
from weights.files import read
from weights.layouts import LAYOUTS, spread
from weights.load import MEASURE, component, load, resolve
from weights.native import save_model

FOLDERS = ("dit-diffusers", "vae-diffusers", "vae-diffusers-old")
TARGETS = ("native", "dit-official", "dit-diffusers", "vae-compvis", "vae-diffusers", "vae-diffusers-old")
PICKLES = (".pt", ".pth", ".ckpt", ".bin")


def convert(source, target, layout: str, dtype: torch.dtype | None = None, vae=None, ema=True, **overrides) -> None:
    """Reads `source` (path or name, as weights.load) and writes `target` in the layout.

    overrides: config fields that the source does not tell, as in weights.load. Raises ValueError as load does, and
    where the layout cannot hold the model.
    """
    if layout not in TARGETS:
        raise ValueError(f"unknown layout {layout!r}, the layouts are {', '.join(TARGETS)}")
    if vae is not None and layout != "dit-diffusers":
        raise ValueError(f"a VAE beside the model belongs to dit-diffusers only, found layout {layout}")
    expect = None if layout == "native" else LAYOUTS[layout].kind
    source = resolve(source)
    model = load(source, expect=expect, ema=ema, **overrides)
    if layout == "native":
        check_ending(target, (".safetensors",))
        metadata = read(source, ema=ema, component=component(source, expect))[1]
        card = graft_header(metadata, source).get("card") or ({"classes": model.classes} if model.classes else None)
        save_model(model, target, dtype, card)
    elif layout == "dit-diffusers":
        export_pipeline(model, Path(target), dtype, vae, model.classes)
    else:
        export(model, Path(target), layout, dtype)


def export(model: nn.Module, target: Path, layout: str, dtype: torch.dtype | None = None) -> None:
    """Writes one model: a file, or for diffusers' layouts the folder of one component."""
    config, kind = model.config, kind_of(model)
    if kind != LAYOUTS[layout].kind:
        raise ValueError(f"{layout} holds a {LAYOUTS[layout].kind}, found a {kind}")
    tensors = spread(plain_state(model), LAYOUTS[layout], size_of(config))
    if layout in FOLDERS:
        settings = dit_json(config) if kind == "dit" else vae_json(config)
        if kind == "dit":
            check_positions(model)
        safe.write(target / "diffusion_pytorch_model.safetensors", tensors, {"format": "pt"}, dtype)
        write_json(target / "config.json", settings)
        return
    check_ending(target, (".safetensors", *PICKLES))
    if target.suffix == ".safetensors":
        safe.write(target, tensors, {"format": "pt"}, dtype)
        return
    with replacing(target) as file:
        torch.save({name: tensor.detach().to(dtype or tensor.dtype).clone() for name, tensor in tensors.items()}, file)


def export_pipeline(model: nn.Module, target: Path, dtype=None, vae=None, classes: list[str] | None = None) -> None:
    """A DiTPipeline's folder. classes: names by id, for its labels; vae: a VAE, or where to load one."""
    index = {"_class_name": "DiTPipeline", "scheduler": ["diffusers", "DDIMScheduler"],
             "transformer": ["diffusers", "DiTTransformer2DModel"], "vae": ["diffusers", "AutoencoderKL"]}  # fmt: skip
    if classes is not None:
        index["id2label"] = {str(i): name for i, name in enumerate(classes)}
    export(model, target / "transformer", "dit-diffusers", dtype)
    write_json(target / "scheduler" / "scheduler_config.json", SCHEDULER_JSON)
    if vae is not None:
        export(vae if isinstance(vae, nn.Module) else load(vae, expect="vae"), target / "vae", "vae-diffusers", dtype)
    write_json(target / "model_index.json", index)


def check_positions(model: nn.Module) -> None:
    """ValueError unless the position table is the sinusoid: a layout without one would lose it."""
    side = model.config.input_size // model.config.patch
    by = (model.pos_embed.float() - position_table(model.config.width, side, side)).abs().max().item()
    if by > MEASURE.get(model.pos_embed.dtype, 1e-5):
        raise ValueError(f"dit-diffusers holds no positions, and this model's differ from the sinusoid by {by:.2g}")


def check_ending(target, endings: tuple[str, ...]) -> None:
    if Path(target).suffix not in endings:
        raise ValueError(f"{target}: expected a file name ending in {' or '.join(endings)}")


def write_json(path: Path, content: dict) -> None:
    with replacing(path) as file:
        file.write(json.dumps(content, indent=2, ensure_ascii=False).encode() + b"\n")


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(prog="python -m weights.convert", description=__doc__.partition("\n")[0])
    parser.add_argument("source", help="file, folder or name, in any known layout")
    parser.add_argument("target", help="file or folder to write")
    parser.add_argument("--layout", required=True, choices=TARGETS)
    parser.add_argument("--dtype", choices=("float32", "float16", "bfloat16"), help="of the written weights")
    parser.add_argument("--vae", help="VAE to put into a dit-diffusers folder")
    parser.add_argument("--raw", action="store_true", help="of a training checkpoint the raw weights, not the average")
    given = parser.parse_args(arguments)
    dtype = getattr(torch, given.dtype) if given.dtype else None
    try:
        convert(given.source, given.target, given.layout, dtype, given.vae, ema=not given.raw)
    except ValueError as error:
        parser.exit(2, f"{error}\n")


if __name__ == "__main__":
    main()

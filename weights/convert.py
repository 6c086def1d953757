"""Any layout to any other: python -m weights.convert SOURCE TARGET --layout NAME [--dtype float16] [--vae PATH].

    native              one file of this package, .safetensors
    dit-official        one file with the names of the original DiT, .pt or .safetensors
    dit-diffusers       a folder that diffusers' DiTPipeline opens (its VAE from --vae)
    vae-compvis         one file with the names of the original Stable Diffusion, .pt, .ckpt or .safetensors
    vae-diffusers       a folder that diffusers' AutoencoderKL opens
    vae-diffusers-old   the same with the names of 2022
    unet-diffusers      a folder that diffusers' UNet2DConditionModel opens
    controlnet-diffusers, controlnet-compvis
                        a folder that diffusers' ControlNetModel opens, or one file with the names of the original
    text-transformers   a folder that transformers' CLIPTextModel opens
    sd-diffusers        a whole Stable Diffusion: a folder that diffusers' StableDiffusionPipeline opens
    sd-compvis          a whole Stable Diffusion: one file with the names of the original, .safetensors
    kohya, lora-diffusers, learned-embeds, a1111-embedding
                        an adapter file of this package for other tools (weights/adapter_files/lora_export.py)

diffusers' DiT computes its timestep embedding with another divisor (127 for 128) and norm2 with eps 1e-5 for 1e-6: with
equal weights its images differ a little from the original's, and so from this package's.
"""

import argparse
from pathlib import Path

import torch

from border import in_words
from sampling.flow import OBJECTIVES
from weights.adapter_files.lora_export import LAYOUTS as ADAPTERS
from weights.adapter_files.lora_export import export_adapter
from weights.formats.files import read
from weights.formats.published import resolve
from weights.formats.safe import graft_header
from weights.layouts.exchange import LAYOUTS
from weights.models.load import component, load
from weights.models.load_sd import load_sd, read_single
from weights.models.save import FOLDERS, check_ending, export, export_pipeline, save_model
from weights.models.save_sd import WRITERS, save_sd

TARGETS = ("native", "dit-official", "vae-compvis", "controlnet-compvis", *FOLDERS, *WRITERS, *ADAPTERS)


def convert(
    source: str | Path,
    target: str | Path,
    layout: str,
    dtype: torch.dtype | None = None,
    vae: str | Path | None = None,
    ema: bool = True,
    **overrides,
) -> None:
    """Read `source` (path or name, as weights.load, or a run folder of train.py) and write `target` in the layout.

    overrides: config fields that the source does not hold, as in weights.load; for a whole Stable Diffusion the options
    of weights.load_sd. Raises ValueError as those do, and where the layout cannot hold the model.
    """
    if layout not in TARGETS:
        raise ValueError(f"unknown layout {layout!r}, the layouts are {', '.join(TARGETS)}")
    if vae is not None and layout != "dit-diffusers":
        raise ValueError(f"a VAE beside the model belongs to dit-diffusers only, found layout {layout}")
    source = of_run(source, layout)
    if layout in ADAPTERS:
        export_adapter(source, target, layout, dtype)
        return
    source = resolve(source)
    if "objective" in overrides and (layout in WRITERS or layout != "native" and LAYOUTS[layout].kind != "dit"):
        raise ValueError(f"an objective belongs to a DiT, found layout {layout}")
    if layout in WRITERS:
        convert_sd(source, target, layout, dtype, ema, **overrides)
        return
    expect = None if layout == "native" else LAYOUTS[layout].kind
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


def of_run(source: str | Path, layout: str) -> str | Path:
    """What a run has left that the layout holds; any other source as it is. ValueError if it has left none."""
    run = Path(source)
    if not (run / "config.toml").is_file():
        return source
    models = ("model.safetensors", "model")
    kinds = {"adapter": ("adapter.safetensors",), "ControlNet": ("control", "control.safetensors"), "model": models}
    kind = "adapter" if layout in ADAPTERS else "ControlNet" if layout.startswith("controlnet") else "model"
    left = [name for names in kinds.values() for name in names if (run / name).exists()]
    if file := next((name for name in kinds[kind] if name in left), None):
        return run / file
    raise ValueError(f"{run}: {layout} is for a whole {kind}, and the run has left {', '.join(left) or 'nothing yet'}")


def convert_sd(source: Path, target: str | Path, layout: str, dtype: torch.dtype | None, ema: bool, **options) -> None:
    """Convert a whole Stable Diffusion. From one file to one file no tokenizer is needed, so none is read."""
    if layout == "sd-compvis" and source.is_file() and "tokenizer" not in options:
        given = {kind: options.get(kind, {}) for kind in ("unet", "text", "vae")}
        pipeline = read_single(source, options.get("prediction"), given, ema)
    else:
        pipeline = load_sd(source, ema=ema, **options)
    save_sd(pipeline, target, layout, dtype)


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(prog="python -m weights.convert", description=__doc__.partition("\n")[0])
    parser.add_argument("source", help="file, folder or name, in any known layout, or a run folder of train.py")
    parser.add_argument("target", help="file or folder to write")
    parser.add_argument("--layout", required=True, choices=TARGETS)
    parser.add_argument("--dtype", choices=("float32", "float16", "bfloat16"), help="of the written weights")
    parser.add_argument("--vae", help="VAE to put into a dit-diffusers folder")
    parser.add_argument("--overwrite", action="store_true", help="the target may exist, and is written over")
    parser.add_argument("--raw", action="store_true", help="of a training checkpoint the raw weights, not the average")
    parser.add_argument("--tokenizer", help="folder or file with CLIP's, which a single Stable Diffusion file lacks")
    parser.add_argument("--prediction", choices=("eps", "v", "x0"), help="of a UNet, if its file errs")
    parser.add_argument("--objective", choices=OBJECTIVES, help="of a DiT whose file does not say")
    given = parser.parse_args(arguments)
    options = {name: getattr(given, name) for name in ("tokenizer", "prediction") if getattr(given, name) is not None}
    if options and given.layout not in WRITERS:
        parser.error(f"--{[*options][0]} belongs to {' and '.join(WRITERS)}")
    options |= {"objective": given.objective} if given.objective else {}
    dtype = getattr(torch, given.dtype) if given.dtype else None
    target = Path(given.target)
    if not given.overwrite and (target.is_file() or target.is_dir() and any(target.iterdir())):
        parser.exit(2, f"{target} is there already: give another name, or --overwrite\n")
    try:
        convert(given.source, given.target, given.layout, dtype, given.vae, ema=not given.raw, **options)
    except ValueError as error:
        parser.exit(2, f"{error}\n")
    except OSError as error:
        parser.exit(2, f"{in_words(error)}\n")
    print(written(target, given.layout))


def written(target: Path, layout: str) -> str:
    """What a conversion has written: the place, the layout, the number of files and their size."""
    files = [file for file in target.rglob("*") if file.is_file()] if target.is_dir() else [target]
    size = sum(file.stat().st_size for file in files)
    return f"wrote {target}: {layout}, {len(files)} {'file' if len(files) == 1 else 'files'}, {size / 1e6:,.1f} MB"


if __name__ == "__main__":
    main()

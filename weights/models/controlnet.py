"""A ControlNet of Stable Diffusion 1 or 2 in the files of diffusers, of the original code and of this package."""

from pathlib import Path

import torch

from unet import ControlledText, ControlNet
from weights.formats import safe
from weights.layouts.exchange import LAYOUTS, spread
from weights.layouts.kinds import plain_state, size_of
from weights.models.load import load
from weights.models.load_sd import StableDiffusion, checked
from weights.models.save import export
from weights.models.save_sd import in_one_file

NAMES = ("controlnet-diffusers", "controlnet-compvis")


def load_control(
    path: str | Path,
    *,
    dtype: torch.dtype | None = None,
    variant: str | None = None,
    check: bool | None = None,
    **overrides,
) -> ControlNet:
    """The ControlNet in `path`, in eval mode, on the CPU, mapped from the file. The options are those of `load`.

    path: a folder of diffusers' ControlNetModel or of a pipeline with one, its weights file alone, a file of the
    original code (.pth, .safetensors) with its Stable Diffusion beside it or without, or one of this package's own.
    A ControlNet that averages over the hint's positions (the one for shuffled images) is refused by its config.json;
    without that file it cannot be recognised. Raises ValueError for any other file, in one sentence.
    """
    return load(path, expect="controlnet", dtype=dtype, variant=variant, check=check, **overrides)


def save_control(
    control: ControlNet,
    target: str | Path,
    layout: str,
    dtype: torch.dtype | None = None,
    base: StableDiffusion | None = None,
) -> None:
    """Write `control` to `target`; `dtype` converts the floating tensors.

    layout: "controlnet-diffusers", the folder that diffusers' ControlNetModel opens; or "controlnet-compvis", one file
    (.safetensors, .pth) with the names of the original code, and with `base` the .safetensors file of the whole Stable
    Diffusion that this code expects around them. Raises ValueError for what the layout cannot hold.
    """
    if layout not in NAMES or base and layout != "controlnet-compvis":
        raise ValueError(
            f"expected one of the layouts {', '.join(NAMES)}, of which the second can hold a base, found "
            f"{layout!r}{' with a base' if base else ''}"
        )
    if base is None:
        export(control, Path(target), layout, dtype)
        return
    ControlledText(base.unet, base.text, control)  # refuses the ControlNet of another UNet
    tensors, metadata = in_one_file(checked(base, target), Path(target))
    tensors |= spread(plain_state(control), LAYOUTS[layout], size_of(control.config))
    safe.write(target, tensors, metadata, dtype)

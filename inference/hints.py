"""What a ControlNet reads at sampling: which ControlNet, and its hints as masks or pictures."""

import math
from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor

import weights
from config import Config
from config import sampling as part
from config.sampling import with_strength
from data.images import decode
from data.transforms import Transform, Variant, to_tensor
from inference.chosen import Chosen
from ops.device import Compute
from recipes.images.masks import mask_hints, mask_images, read_masks
from unet import VAE, ControlNet


class Control(NamedTuple):
    """A ControlNet, how strongly it acts, and the images that it reads."""

    path: Path
    strength: float
    hints: list[str]


def controls_of(config: Config) -> list[Control]:
    """The ControlNets, which take the hints in turn. ValueError for one without a hint, and for hints without one."""
    run, hints, count = config[part.Source].run, config[part.Hints].hint, config[part.Output].count
    own = trained_control(Path(run)) if run else None
    named = [with_strength(text) for text in config[part.Hints].control] or ([("", 1.0)] if own else [])
    if not own and any(not file for file, _ in named):
        raise ValueError("--control :STRENGTH is of the ControlNet of a --run, and there is none")
    controls = [(Path(file) if file else own, strength) for file, strength in named]
    for path, strength in controls:
        if not math.isfinite(strength):
            raise ValueError(f"{path}: the strength of a ControlNet must be a finite number, found {strength}")
    if controls and not hints:
        raise ValueError(f"{controls[0][0]}: a ControlNet reads an image, give --hint FILE")
    if hints and not controls:
        raise ValueError(f"--hint {hints[0]} is read by a ControlNet, give --control or the --run of one")
    if controls and len(hints) % len(controls):
        raise ValueError(f"the {len(controls)} ControlNets take --hint in turn, one each, found {len(hints)} hints")
    each = len(hints) // max(len(controls), 1)
    if each and count % each:
        raise ValueError(f"--count must be a multiple of the {each} hints, found {count}")
    return [Control(path, strength, hints[i :: len(controls)]) for i, (path, strength) in enumerate(controls)]


def trained_control(run: Path) -> Path | None:
    """The ControlNet that a run trained: a folder of Stable Diffusion's, a file of a DiT's; None if it trained none."""
    return next((path for name in ("control", "control.safetensors") if (path := run / name).exists()), None)


def in_latents(control: Control, side: int, stored: dict, vae: VAE, compute: Compute) -> Tensor:
    """What a DiT's ControlNet reads: the scaled latents (hints, C, h, w) of the masks as it was trained on them."""
    trained = weights.load_adapter(control.path)[1]["config"] or stored
    shown = to_tensor(mask_images(read_masks(control.hints, side, trained)))  # (hints, 3, S, S)
    return vae.config.scaling_factor * vae.encode(shown.to(compute.device))[0].float()


def in_pixels(control: Control, net: ControlNet, sides: tuple[int, int], stored: dict) -> Tensor:
    """What a Stable Diffusion's ControlNet reads (hints, 1 or 3, *sides): masks of the control recipe, or pictures."""
    if net.config.hint_channels != 1:
        return pictures(control.hints, sides)
    masks = read_masks(control.hints, sides, stored)
    return mask_hints(masks, [Variant()])[torch.arange(len(masks)), 0]


def pictures(files: list[str], sides: tuple[int, int]) -> Tensor:
    """The hints of a ControlNet that reads pictures: (hints, 3, *sides) from 0 to 1."""
    return torch.stack([to_tensor(Transform(sides)(decode(file))) for file in files]) / 2 + 0.5


def in_turn(hints: Tensor, count: int, columns: int) -> Chosen:
    """The hints for the images of all columns, the `count` of each in turn: (N, ...)."""
    return Chosen(hints, (torch.arange(count) % len(hints)).repeat(columns))

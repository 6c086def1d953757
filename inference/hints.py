"""What a ControlNet reads at sampling: which ControlNet, and its hints as masks or pictures."""

from pathlib import Path

import torch
from torch import Tensor

from config import Config
from config import sampling as part
from data.images import decode
from data.transforms import Transform, to_tensor
from inference.chosen import Chosen


def control_of(config: Config) -> Path | None:
    """The ControlNet, None without one. ValueError for one without a hint, and for hints that no ControlNet reads."""
    run, hints, count = config[part.Source].run, config[part.Hints], config[part.Output].count
    own = trained_control(Path(run)) if run else None
    control = Path(hints.control) if hints.control else own
    if control and not hints.hint:
        raise ValueError(f"{control}: a ControlNet reads an image, give --hint FILE")
    if hints.hint and not control:
        raise ValueError(f"--hint {hints.hint[0]} is read by a ControlNet, give --control or the --run of one")
    if hints.hint and count % len(hints.hint):
        raise ValueError(f"--count must be a multiple of the {len(hints.hint)} hints, found {count}")
    return control


def trained_control(run: Path) -> Path | None:
    """The ControlNet that a run trained: a folder of Stable Diffusion's, a file of a DiT's; None if it trained none."""
    return next((path for name in ("control", "control.safetensors") if (path := run / name).exists()), None)


def pictures(files: list[str], sides: tuple[int, int]) -> Tensor:
    """The hints of a ControlNet that reads pictures: (hints, 3, *sides) from 0 to 1."""
    return torch.stack([to_tensor(Transform(sides)(decode(file))) for file in files]) / 2 + 0.5


def in_turn(hints: Tensor, count: int, columns: int) -> Chosen:
    """The hints for the images of all columns, the `count` of each in turn: (N, ...)."""
    return Chosen(hints, (torch.arange(count) % len(hints)).repeat(columns))

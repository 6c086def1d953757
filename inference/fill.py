"""Photographs whose masks are filled: crop, draw, paste, for each sample of a call.

A model without an input for masks blends its latents at every step (sampling/fill.py); one with an input reads the mask
and the latent of the photograph without it (unet/inpaint.py, dit/inpaint.py). Either way the photograph keeps its own
pixels outside of the mask (data/place/pasted.py).
"""

import re
from collections.abc import Callable
from dataclasses import replace
from functools import cache
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from config import sampling as part
from data.folders.tree import read_tree
from data.images import decode, decode_mask
from data.place.pasted import pasted
from data.transforms import resize, to_tensor
from data.window import window
from dit import MaskedDiT
from inference.chosen import Chosen
from inference.request import Request
from ops.device import Compute
from sampling import Resampled, Schedule, blended, cleanest, sample_noise, timesteps_of
from unet import MaskedText
from unet.inpaint import hint_of, touched

APART = 2**32  # between the seed of a sample and that of the noise that RePaint adds to it


class Fill:
    """The photographs and masks of a call, and the request with what fills them. Sample i of a column has job i."""

    def __init__(
        self,
        request: Request,
        start: part.Start,
        fill: part.Fill,
        sampler: part.Sampler,
        output: part.Output,
        compute: Compute,
    ):
        """Raises ValueError for masks that fit no photograph, and for settings that the model cannot take."""
        check_fill(request, fill, sampler.sampler)
        self.jobs, self.count, self.candidates = jobs(start.image, fill.mask), output.count, fill.candidates
        self.window, self.vae, self.device = fill.window, request.vae, compute.device
        columns = len(request.cond) // self.count
        used = [self.number(i) for i in range(self.count)] * columns  # the job of each sample
        planes = [self.encoded(*self.jobs[job], request.shape) for job in range(max(used) + 1)]
        # (N, C or 1 or 1 + C, h, w)
        self.z, self.masks, hints = (Chosen(torch.stack(plane), used) for plane in zip(*planes))
        self.start = None if start.strength == 1 else self.z
        self.blends = not reads_masks(request.model)
        if not self.blends:
            self.request = replace(request, hint=hints)
            return
        schedule = request.schedule
        steps = timesteps_of(sampler.sampler, schedule, sampler.steps)
        steps = steps if self.start is None else cleanest(steps, start.strength)
        about = {name: getattr(schedule, name) for name in schedule.__dataclass_fields__}
        again = Resampled(**about, times=fill.resample, jump=fill.jump) if fill.resample > 1 else schedule
        self.request = replace(request, schedule=again, on_step=self.blending(request, steps, output.seed))

    def blending(self, request: Request, steps: list[int], seed: int) -> Callable:
        """on_step(samples) -> what blends their latents at each step, and then does what the request did."""
        seeds, apart = request.seeds(seed), request.seeds(seed + APART)

        def on_step(here: slice) -> Callable[[Tensor, int], Tensor]:
            numbers, z = range(here.start, here.stop), self.z[here]
            eps = sample_noise(seeds, numbers)(z)
            blend = blended(z, self.masks[here], eps, request.schedule, steps, sample_noise(apart, numbers))
            if request.on_step is None:
                return blend
            more = request.on_step(here)
            return lambda x, t: more(blend(x, t), t)

        return on_step

    def number(self, i: int) -> int:
        """The job of sample i: those of a column take them in turn, candidates the same."""
        return i % self.count // self.candidates % len(self.jobs)

    @torch.no_grad()
    def encoded(self, image: Path, file: Path, shape: tuple[int, int, int]) -> tuple[Tensor, Tensor, Tensor]:
        """One job's z (C, h, w), its mask (1, h, w), and what a model for inpainting reads of both (1 + C, h, w)."""
        photograph, mask, square = read_job(image, file, self.window)
        side = shape[1] * self.vae.factor
        pixels = to_tensor(resized(photograph[square], side))[None].to(self.device)  # (1, 3, S, S)
        cut = torch.from_numpy(mask[square])[None, None].float().to(self.device)
        hint = hint_of(self.vae, pixels, touched(cut, (side, side)), shape[1:])[0]
        return self.vae.config.scaling_factor * self.vae.encode(pixels)[0][0].float(), hint[:1], hint

    def kept(self, x: Tensor, first: int) -> Tensor:
        """The latents x (B, C, h, w) of the samples from number `first` on, clean and good outside of their masks."""
        here = slice(first, first + len(x))
        return self.masks[here] * x + (1 - self.masks[here]) * self.z[here] if self.blends else x

    def read(self, i: int) -> tuple[np.ndarray, np.ndarray, tuple[slice, slice]]:
        """The photograph (H, W, 3) of sample i, its mask (H, W) bool and the square that is drawn."""
        return read_job(*self.jobs[self.number(i)], self.window)

    def pasted(self, drawn: np.ndarray, i: int) -> np.ndarray:
        """Sample i (S, S, 3) in its photograph (H, W, 3)."""
        photograph, mask, square = self.read(i)
        return pasted(drawn, mask, photograph, square)


def reads_masks(model: nn.Module) -> bool:
    """Whether a model has an input for masks, so that nothing is blended."""
    return isinstance(model, MaskedText | MaskedDiT)


def check_fill(request: Request, fill: part.Fill, sampler: str) -> None:
    """ValueError for a window that is no square, and for settings that the model or the sampler cannot take."""
    if request.shape[1] != request.shape[2]:
        raise ValueError("a mask is filled in a square window, so --size must be one number")
    if reads_masks(request.model) and (fill.resample > 1 or request.on_step is not None):
        flag = "--resample" if fill.resample > 1 else "--attend"
        raise ValueError(f"{flag} is for models without an input for masks, and this one has it")
    if fill.resample > 1 and sampler in ("dpm++", "heun"):
        reads = {"dpm++": "the step before", "heun": "the step ahead"}[sampler]
        raise ValueError(f"--resample goes back and forth, and {sampler} reads {reads}: take ddim or ddpm")
    if fill.resample > 1 and not isinstance(request.schedule, Schedule):
        raise ValueError("--resample goes back along a diffusion chain, and this model is a flow: give --resample 1")


def resized(image: np.ndarray, side: int) -> np.ndarray:
    """A square image at another side; itself at its own."""
    return image if len(image) == side else resize(image, side)


@cache
def listed(path: str) -> list[Path]:
    """The file, or the images of a folder and its folders."""
    return read_tree(path).all_images if Path(path).is_dir() else [Path(path)]


def jobs(images: str, masks: str) -> list[tuple[Path, Path]]:
    """(photograph, mask) of each job: each mask with the photograph of its name, as 1_mask.png or 1-2.png with 1.jpg.

    Where no mask has the name of a photograph, both come in turn. ValueError if only some have, or a folder is empty.
    """
    photographs, shapes = listed(images), listed(masks)
    for path, found in ((images, photographs), (masks, shapes)):
        if not found:
            raise ValueError(f"{path}: expected images, found none")
    of_stem = {path.stem: path for path in photographs}
    owners = [of_stem.get(path.stem) or of_stem.get(re.sub(r"(-\d+)?(_mask)?$", "", path.stem)) for path in shapes]
    if all(owners):
        return list(zip(owners, shapes))
    if any(owners):
        lost = shapes[owners.index(None)].name
        raise ValueError(f"{masks}: {lost} has the name of no photograph in {images}, and other masks have")
    total = max(len(photographs), len(shapes))
    return [(photographs[i % len(photographs)], shapes[i % len(shapes)]) for i in range(total)]


def read_job(image: Path, file: Path, ratio: float) -> tuple[np.ndarray, np.ndarray, tuple[slice, slice]]:
    """The photograph (H, W, 3), its mask (H, W) bool and the square that is drawn. ValueError for other sizes."""
    photograph, mask = decode(image), decode_mask(file) > 0
    if mask.shape != photograph.shape[:2]:
        height, width = photograph.shape[:2]
        raise ValueError(
            f"{file}: a mask is as large as its photograph; {image} is {width}x{height}, the mask "
            f"{mask.shape[1]}x{mask.shape[0]}"
        )
    square = window(mask, ratio)
    if mask[square].sum() < mask.sum():
        side = square[0].stop - square[0].start
        raise ValueError(f"{file}: the mask does not fit in the largest square of its photograph, of {side}: crop both")
    return photograph, mask, square

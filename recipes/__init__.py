"""The recipes: each joins what conditions the model (conditions/) with an objective (objectives/), for one loop.

RECIPES is the table: for each recipe and each kind of model that it trains, the parts of the settings that it reads.
Every other setting is refused. A recipe is a function of (config, compute) that returns a Job (job.py). Beside the
files of recipes lie the rooms that they share: images/, models/ and samples/.
"""

from collections.abc import Callable
from typing import NamedTuple

from config import training as part
from recipes.autoencoder import autoencoder
from recipes.class_label import class_label
from recipes.classifier import classifier
from recipes.consistency import consistency
from recipes.control import control
from recipes.inpaint import inpaint
from recipes.job import Job
from recipes.text import dreambooth, text, textual_inversion

__all__ = ["DIT", "NEW_DIT", "NEW_SD", "RECIPES", "SD", "Job", "Recipe"]


class Recipe(NamedTuple):
    """build(config, compute) -> Job; parts: kind of model ("a DiT") -> the parts of the settings that are read.

    model: the one that trains where none is named.
    """

    build: Callable[..., Job]
    parts: dict[str, tuple[type, ...]]
    model: str = "tiny-dit"


DIT, NEW_DIT, SD, NEW_SD = "a DiT", "a new DiT", "a Stable Diffusion", "a new Stable Diffusion"

_PIXELS = (part.Run, part.Base, part.Images, part.HeldOut, part.Adapter, part.Loop)
_LATENTS = (part.Run, part.Base, part.Images, part.Latents, part.Blocks, part.Loop, part.Grid)
_DENOISING = (part.Denoising, part.Sampling)
_WATCHED = (*_DENOISING, part.Stopping, part.Features, part.Scores)
_CLASSES = (
    *_LATENTS,
    part.Autoencoder,
    part.HeldOut,
    part.Adapter,
    part.Superclasses,
    part.NoiseSchedule,
    part.Objective,
    *_WATCHED,
    part.Measure,
)
_SHAPED = (part.Buckets, part.Captions, part.Prompts, part.TextRate)
_WORD = (*_LATENTS, part.HeldOut, *_SHAPED, part.NewWord, *_WATCHED)
_DISTILLING = (*_LATENTS, part.HeldOut, part.Adapter, part.StartFiles, part.Teacher)
_FILLING = (*_LATENTS, part.Adapter, part.Window, part.Filling, *_DENOISING)
_MASKED_DIT = (*_FILLING, part.Heads, part.Autoencoder, part.ClassRows)
_MASKED_SD = (*_FILLING, part.Captions, part.DefectWord, part.TextRate)
_CONTROL = (*_LATENTS, part.StartFiles, *_DENOISING)


def _captioned(*parts: type) -> dict[str, tuple[type, ...]]:
    """For a Stable Diffusion, and for a new one, which needs an autoencoder."""
    return {SD: parts, NEW_SD: (*parts, part.Autoencoder)}


RECIPES = {
    "class_label": Recipe(class_label, {DIT: (*_CLASSES, part.Heads, part.ClassRows), NEW_DIT: _CLASSES}),
    "text": Recipe(text, _captioned(*_WORD, part.Adapter), "tiny-sd"),
    "dreambooth": Recipe(dreambooth, _captioned(*_WORD, part.Adapter, part.Prior), "tiny-sd"),
    "textual_inversion": Recipe(textual_inversion, _captioned(*_WORD), "tiny-sd"),
    "consistency": Recipe(
        consistency,
        {DIT: (*_DISTILLING, part.Heads, part.Autoencoder, part.Features, part.Measure), SD: (*_DISTILLING, *_SHAPED)},
    ),
    "control": Recipe(
        control, {DIT: (*_CONTROL, part.Heads, part.Autoencoder, part.Objective), SD: (*_CONTROL, part.Captions)}
    ),
    "inpaint": Recipe(inpaint, {DIT: _MASKED_DIT, SD: _MASKED_SD}),
    "autoencoder": Recipe(autoencoder, {"an autoencoder": _PIXELS}, "tiny-vae"),
    "classifier": Recipe(classifier, {"a classifier": _PIXELS}, "new:Features"),
}

"""What a batch is, what conditions the network, which loss: one file a recipe, one loop (train.py) for all.

A recipe is a function of the run's config that builds the model, attaches what trains and answers four questions. A
batch and a loss are functions of an explicit random generator, so that a step depends on nothing but the seed and its
number: a run that is killed and resumed is the run left alone.
"""

from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

from torch import Generator, Tensor, nn


class Recipe(NamedTuple):
    model: nn.Module  # requires_grad marks what trains
    adapter: list[str]  # the specs as attached
    names: list[str]  # of the images, to name a bad batch
    batch: Callable[[Tensor, Generator], dict[str, Tensor]]  # image numbers (B,) -> tensors
    loss: Callable[[dict, Generator, float], tuple[Tensor, dict]]  # batch, share of the training done -> scalar, log
    look: Callable[[Path, int], dict]  # run folder, step -> pictures there, numbers
    finish: Callable[[Path], None]  # run folder -> the files that a run leaves
    rates: dict[str, float] = {}  # start of a parameter's name -> peak rate, not lr


def recipes() -> dict[str, Callable]:
    """Name -> function of (config, device). Imported here, so that the recipe files can import Recipe."""
    from recipes.autoencoder import autoencoder
    from recipes.class_label import class_label
    from recipes.classifier import classifier
    from recipes.consistency import consistency
    from recipes.control import control
    from recipes.dreambooth import dreambooth
    from recipes.text import text
    from recipes.textual_inversion import textual_inversion

    return {
        "class_label": class_label,
        "text": text,
        "dreambooth": dreambooth,
        "textual_inversion": textual_inversion,
        "consistency": consistency,
        "control": control,
        "autoencoder": autoencoder,
        "classifier": classifier,
    }

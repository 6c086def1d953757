"""What the training loop runs: a model, its batches and its loss, and what becomes of them."""

from collections.abc import Callable
from dataclasses import fields
from pathlib import Path
from typing import NamedTuple

import torch
from torch import Generator, Tensor, nn

from config import Config
from config.training import Objective, Stopping

OF_A_CALL = ("out", "resume", "allow_change", "dry_run", "shard")  # settings of a call of train.py, not of the run
Batch = dict[str, Tensor]
Batches = Callable[[Tensor, Generator], Batch]  # image numbers (B,), source of randomness -> a batch
Loss = Callable[[Batch, Generator, float], tuple[Tensor, dict]]  # batch, ..., share of the training done -> scalar, log


class Job(NamedTuple):
    """A batch and a loss are functions of an explicit generator, so that a step depends on nothing but (seed, step).

    So a run that is killed and resumed is the run left alone.
    """

    model: nn.Module  # requires_grad marks what trains
    adapter: list[str]  # the specs as attached
    names: list[str]  # of the images, to name a bad batch
    batch: Batches
    loss: Loss
    evaluate: Callable[[Path, int], dict]  # run folder, step -> a grid of samples there, and numbers for the log
    finish: Callable[[Path], None]  # run folder -> the files that a run leaves
    rates: dict[str, float] = {}  # start of a parameter's name -> its peak learning rate, where that is not lr
    made_of: dict = {}  # digests of images, classes and base (made_of.py), which the state of the run keeps
    buckets: list[Tensor] = []  # numbers of the images that may share a batch; none: all may


class HeldOut(NamedTuple):
    """Batches of images that are not trained on."""

    batches: Batches
    count: int

    @torch.no_grad()
    def loss(self, loss: Loss, device: torch.device, size: int = 100) -> float:
        """The mean loss, with noise that is the same at every call: the signal of overfitting."""
        total = 0.0
        for first in range(0, self.count, size):
            index = torch.arange(first, min(first + size, self.count))
            generator = torch.Generator().manual_seed(first)
            part = {key: value.to(device) for key, value in self.batches(index, generator).items()}
            total += loss(part, generator, 1.0)[0].item() * len(index)
        return total / self.count


def header_settings(config: Config) -> dict:
    """The settings that an adapter file keeps: not where and how often the run started, nor what decided nothing."""
    idle = () if Stopping not in config or config[Stopping].acts else ("keep", "stop_corrupted", "features")
    idle += () if config.values.get("huber") else ("huber", "huber_schedule")
    idle += tuple(field.name for field in fields(Objective) if config.values.get(field.name) == field.default)
    return {key: value for key, value in config.values.items() if key not in (*OF_A_CALL, *idle, "compile")}

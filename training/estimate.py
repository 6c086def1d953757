"""What a run will take, from a dry run: memory, time and disk, and what less of a setting would save."""

import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import fields
from pathlib import Path
from typing import NamedTuple

from torch import nn

import adapters
from config.training import Loop
from ops.compiled import WATCH
from ops.device import peak_gib
from ops.machine.process import count
from training.state import STATE, averaged, save_state
from training.step.turns import steps_of

GIB, MB = 2**30, 1e6
FEW_STEPS = 2  # of the sampler, in a dry run
COLUMNS = 8  # of an evaluation at most, for the time that is expected
GUIDED = 2  # passes of the network in a step of the sampler
TRAINING = 3  # passes that a step of training takes as long as, an image: one forward, about two backward


class DryRun(NamedTuple):
    """What was measured: seconds of each part, GiB before and after the first step, bytes on disk."""

    seconds: dict[str, float]  # "start", "step", "checkpoint", "evaluation" (one sample a column), "result"
    held_gib: float | None
    peak_gib: float | None
    checkpoint: int
    result: int
    weights: int  # bytes of one copy of what trains
    columns: int  # in an evaluation
    classes: int  # that the metrics at the end sample
    images: int = 0  # that are trained on


def smaller(values: dict) -> dict:
    """The settings of a dry run: nothing is cached, one sample a column of few steps, and no metrics."""
    little = {"cache": "", "count": 1, "sample_steps": FEW_STEPS, "measure": 0, "class_images": 1, "keep": "last"}
    little |= {"stop_corrupted": False, "dry_run": False}
    return {name: value for name, value in little.items() if name in values}


def rehearse(start: Callable, step: Callable) -> DryRun:
    """Two steps, a checkpoint, an evaluation and the result of a run, in a temporary folder that goes again.

    start() -> (job, state); step(number, job, optimizer): as in train.py. ValueError for more than one process.
    """
    if count() > 1:
        raise ValueError("--dry-run says what one process takes: start it without torchrun")
    seconds: dict[str, float] = {}
    with tempfile.TemporaryDirectory() as folder:
        run = Path(folder)
        with timed(seconds, "start"):
            job, state = start()
        device = next(job.model.parameters()).device
        held = peak_gib(device)
        job.model.train()
        for number, name in enumerate(("first step", "step")):
            with timed(seconds, name):
                step(number, job, state.optimizer)
        with timed(seconds, "checkpoint"):
            save_state(run, state, 2)
        with averaged(job.model, state.parameters, state.ema):
            with timed(seconds, "evaluation"):
                job.evaluate(run, 0)
            with timed(seconds, "result"):
                job.finish(run)
        checkpoint = (run / STATE).stat().st_size
        everything = sum(file.stat().st_size for file in run.rglob("*") if file.is_file())
    copy = sum(p.nbytes for p in state.parameters.values())
    classes = len(job.made_of.get("classes", {}).get("names", []))
    columns, images = min(COLUMNS, classes or COLUMNS), len(job.names)
    return DryRun(seconds, held, peak_gib(device), checkpoint, everything - checkpoint, copy, columns, classes, images)


@contextmanager
def timed(seconds: dict[str, float], name: str) -> Iterator[None]:
    """Put the seconds that the block takes under the name, without those of compiling, which come once."""
    began, before = time.monotonic(), WATCH.total
    yield
    seconds[name] = time.monotonic() - began - (WATCH.total - before)


def estimate(values: dict, dry: DryRun) -> str:
    """Lines for a reader: the peak of memory, seconds a step, the time and the disk of the whole run, and levers.

    values: the settings of the run by name.
    """
    loop = Loop(**{field.name: values[field.name] for field in fields(Loop) if field.name in values})
    took, steps = dry.seconds, steps_of(loop, dry.images)
    sampling = sampling_seconds(values, dry)
    extra = values.get("measure", 0) * dry.classes + (
        values.get("class_images", 0) if values.get("prior_weight") else 0
    )
    evaluations = -(-steps // values["sample_every"]) + 1
    parts = {
        f"{steps} steps": steps * took["step"],
        f"{evaluations} evaluations": evaluations * sampling * values.get("count", 1),
        "checkpoints": -(-steps // values["save_every"]) * took["checkpoint"],
        "start and end": took["start"] + took["result"] + extra * sampling / max(1, dry.columns),
    }
    each = ", ".join(f"{name} {span(seconds)}" for name, seconds in parts.items())
    peak = "unknown here" if dry.peak_gib is None else f"{dry.peak_gib:.2f} GiB"
    lines = [
        f"peak memory: {peak}",
        f"seconds a step: {took['step']:.3g}",
        f"the whole run: about {span(sum(parts.values()))} ({each})",
        f"on disk: {(2 * dry.checkpoint + dry.result) / MB:,.1f} MB "
        f"(two checkpoints of {dry.checkpoint / MB:,.1f} MB, the result {dry.result / MB:,.1f} MB)",
    ]
    return "\n".join([*lines, *levers(values, dry)])


def sampling_seconds(values: dict, dry: DryRun) -> float:
    """Of an evaluation with one sample a column: what it took with FEW_STEPS, and the passes of the steps to come.

    A pass is as long as its share of a step of training; never more than if all of the evaluation were steps.
    """
    steps, evaluation = values.get("sample_steps", FEW_STEPS), dry.seconds["evaluation"]
    one_pass = dry.seconds["step"] / (TRAINING * values["batch"] * values["accumulate"])
    more = (steps - FEW_STEPS) * GUIDED * one_pass * dry.columns
    return min(evaluation + max(more, 0), evaluation * max(steps / FEW_STEPS, 1))


def levers(values: dict, dry: DryRun) -> list[str]:
    """What some settings would save, one line each."""
    lines, batch = [], values["batch"]
    activations = (dry.peak_gib or 0) - (dry.held_gib or 0)
    if batch > 1 and activations > 0.01:
        half = f"--batch {batch // 2} --accumulate {2 * values['accumulate']}"
        lines.append(f"{half} saves about {activations / 2:.2f} GiB of memory")
    copy = f"{dry.weights / MB:,.1f} MB of memory and {2 * dry.weights / MB:,.1f} MB on disk"
    if values["ema"]:
        lines.append(f"--ema 0 saves {copy}")
    if values.get("keep") == "best":
        lines.append(f"--keep last saves {copy}")
    return lines


def span(seconds: float) -> str:
    """A time in a unit that fits: "12 s", "3.4 min", "1.2 h"."""
    if seconds < 100:
        return f"{seconds:.3g} s"
    return f"{seconds / 60:.3g} min" if seconds < 6000 else f"{seconds / 3600:.3g} h"


def cost(model: nn.Module) -> dict:
    """What a run took besides time: the parameters that trained, of how many, and the most memory in GiB."""
    trained, total = adapters.counts(model)
    return {"trained": trained, "total": total, "peak_gib": peak_gib(next(model.parameters()).device)}

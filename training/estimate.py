"""What a run will take, from a dry run: memory, time and disk, and what less of a setting would save."""

import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

from torch import nn

import adapters
from config import Config
from config.training import Grid, Loop, Measure, Prior, Run, Sampling
from ops.device import peak_gib
from training.state import STATE, averaged, save_state

GIB, MB = 2**30, 1e6
FEW_STEPS = 2  # of the sampler, in a dry run
COLUMNS = 8  # of an evaluation at most


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


@contextmanager
def timed(seconds: dict[str, float], name: str) -> Iterator[None]:
    """Put the seconds that the block takes under the name."""
    began = time.monotonic()
    yield
    seconds[name] = time.monotonic() - began


def estimate(config: Config, dry: DryRun) -> str:
    """Lines for a reader: the peak of memory, seconds a step, the time and the disk of the whole run, and levers."""
    loop, took = config[Loop], dry.seconds
    sampler_steps = config[Sampling].sample_steps / FEW_STEPS if Sampling in config else 1
    evaluation = took["evaluation"] * sampler_steps * (config[Grid].count if Grid in config else 1)
    sample = took["evaluation"] * sampler_steps / max(1, dry.columns)
    extra = config[Measure].measure * dry.classes * sample if Measure in config else 0
    if Prior in config and config[Prior].prior_weight:
        extra += config[Prior].class_images * sample
    evaluations = -(-loop.steps // loop.sample_every) + 1
    parts = {
        f"{loop.steps} steps": loop.steps * took["step"],
        f"{evaluations} evaluations": evaluations * evaluation,
        "checkpoints": -(-loop.steps // loop.save_every) * took["checkpoint"],
        "start and end": took["start"] + took["result"] + extra,
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
    return "\n".join([*lines, *levers(config, dry)])


def levers(config: Config, dry: DryRun) -> list[str]:
    """What some settings would save, one line each."""
    loop, lines = config[Loop], []
    activations = (dry.peak_gib or 0) - (dry.held_gib or 0)
    if loop.batch > 1 and activations > 0.01:
        half = f"--batch {loop.batch // 2} --accumulate {2 * loop.accumulate}"
        lines.append(f"{half} saves about {activations / 2:.2f} GiB of memory")
    copy = f"{dry.weights / MB:,.1f} MB of memory and {2 * dry.weights / MB:,.1f} MB on disk"
    if loop.ema:
        lines.append(f"--ema 0 saves {copy}")
    if config.values.get("keep") == "best":
        lines.append(f"--keep last saves {copy}")
    return lines


def span(seconds: float) -> str:
    """A time in a unit that fits: "12 s", "3.4 min", "1.2 h"."""
    if seconds < 100:
        return f"{seconds:.3g} s"
    return f"{seconds / 60:.3g} min" if seconds < 6000 else f"{seconds / 3600:.3g} h"


def dry_run(config: Config, begin: Callable, one_step: Callable) -> None:
    """Two steps, a checkpoint, a few samples and the result in a temporary folder; prints what the run will take.

    begin(config) -> the job and its first state, and one_step, as in train.py.
    """
    little = {"cache": "", "count": 1, "sample_steps": FEW_STEPS, "measure": 0, "class_images": 1, "keep": "last"}
    little |= {"stop_corrupted": False, "dry_run": False}
    seconds, options = {}, config[Loop]
    with tempfile.TemporaryDirectory() as folder:
        run = Path(folder)
        with timed(seconds, "start"):
            job, state = begin(config.replace(**{key: value for key, value in little.items() if key in config.values}))
        device = next(job.model.parameters()).device
        held = peak_gib(device)
        job.model.train()
        for step, name in enumerate(("first step", "step")):
            with timed(seconds, name):
                one_step(options, config[Run], step, job, state.optimizer)
        with timed(seconds, "checkpoint"):
            save_state(run, state, 2)
        with averaged(job.model, state.parameters, state.ema):
            with timed(seconds, "evaluation"):
                job.evaluate(run, 0)
            with timed(seconds, "result"):
                job.finish(run)
        sizes = {file: file.stat().st_size for file in run.rglob("*") if file.is_file()}
        checkpoint, copy = sizes[run / STATE], sum(p.nbytes for p in state.parameters.values())
        classes = len(job.made_of.get("classes", {}).get("names", []))
        measured = DryRun(
            seconds,
            held,
            peak_gib(device),
            checkpoint,
            sum(sizes.values()) - checkpoint,
            copy,
            min(COLUMNS, classes or COLUMNS),
            classes,
        )
    print(estimate(config, measured))


def cost(model: nn.Module) -> dict:
    """What a run took besides time: the parameters that trained, of how many, and the most memory in GiB."""
    trained, total = adapters.counts(model)
    return {"trained": trained, "total": total, "peak_gib": peak_gib(next(model.parameters()).device)}

"""The row `main`: a step of `python train.py` without other models or images, in this tree and in that of a commit."""

import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

from bench.interleave import MAXRSS, ROOT

FEW, MANY = 2, 42  # steps; what both take alike cancels
JOB = "train.py --sample-steps 2 --count 1 --measure 0 --cache= --device cpu"


def here(size: dict, device: str) -> Callable:
    """In this tree."""
    return steps(ROOT, tempfile.TemporaryDirectory())


def there(size: dict, device: str) -> Callable:
    """In the tree of the commit `against`."""
    work = tempfile.TemporaryDirectory()
    archive = subprocess.run(["git", "archive", size["against"]], cwd=ROOT, capture_output=True, check=True).stdout
    subprocess.run(["tar", "-x", "-C", work.name], input=archive, check=True)
    return steps(Path(work.name), work)


def steps(tree: Path, work: tempfile.TemporaryDirectory) -> Callable:
    """What a step takes: a long run less a short one, over the steps between."""

    def step() -> dict:
        few, many = run(tree, FEW, work.name), run(tree, MANY, work.name)
        each = {name: (many[name] - few[name]) / (MANY - FEW) for name in ("wall", "cpu")}
        return each | {"peak": many["peak"]}

    return step


def run(tree: Path, count: int, work: str) -> dict:
    """The wall, processor time and peak of a run of so many steps."""
    with tempfile.TemporaryDirectory(dir=work) as out:
        words = [sys.executable, *JOB.split(), "--steps", str(count), "--out", f"{out}/run"]
        began, before = time.perf_counter(), resource.getrusage(resource.RUSAGE_CHILDREN)
        subprocess.run(words, cwd=tree, check=True, capture_output=True)
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
    cpu = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    return {"wall": time.perf_counter() - began, "cpu": cpu, "peak": after.ru_maxrss * MAXRSS}

"""The row `main`: a step of `python train.py` without other models or images, in this tree and in that of a commit."""

import subprocess
import tempfile
from collections.abc import Callable
from pathlib import Path

from bench.timing.child import ROOT, run

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

    def of(count: int) -> dict:
        with tempfile.TemporaryDirectory(dir=work.name) as out:
            return run([*JOB.split(), "--steps", str(count), "--out", f"{out}/run"], tree)

    def step() -> dict:
        few, many = of(FEW), of(MANY)
        each = {name: (many[name] - few[name]) / (MANY - FEW) for name in ("wall", "cpu")}
        return each | {"peak": many["peak"]}

    return step

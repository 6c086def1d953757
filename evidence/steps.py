"""The steps that claims share: the plan of a comparison, its rows, one of its runs, and samples of a run."""

from pathlib import Path

from data import ImageSet
from data.output.samples import read_samples
from data.transforms import Transform
from experiments.comparison import compare, train_method
from experiments.plan import Plan, read_plan
from experiments.run import sample_once

ROOT = Path(__file__).resolve().parent.parent
PLANS = {
    path.stem: path for pattern in ("evidence/claims/*/*.toml", "configs/compare_*.toml") for path in ROOT.glob(pattern)
}
SIDE = 64  # pixels, of the images of all small models


def plan_of(name: str, quick: bool) -> Plan:
    """The comparison NAME.toml, or its short form."""
    plan = read_plan(PLANS[name])
    return plan.shortened() if quick else plan


def compared(name: str, work: Path, quick: bool, methods: list[str] | None = None) -> list[dict]:
    """The rows of the comparison NAME.toml, or of some of its methods; what `work` holds already is not done again."""
    plan = plan_of(name, quick)
    plan.methods = {method: plan.methods[method] for method in methods or plan.methods}
    return compare(plan, work / name)


def run_of(name: str, work: Path, quick: bool, method: str, seed: int) -> Path:
    """The finished run of one method and seed of the comparison NAME.toml."""
    return train_method(plan_of(name, quick), work.resolve() / name, method, seed)


def samples(folder: Path, columns: list[str] | None, quick: bool, /, **settings) -> ImageSet:
    """The samples in a folder, written by sample.py with these settings unless they are there.

    columns: the prompts or classes of read_samples. quick: 5 steps instead of those of the settings.
    """
    sample_once(folder, settings | ({"steps": 5} if quick else {}))
    return read_samples(folder, Transform(SIDE), columns)

"""A flow backbone learns from few images what a diffusion backbone learns, and is sampled in fewer steps.

Promised by SiT (Ma et al. 2024, arXiv 2401.08740) for training on all of ImageNet: the same network, trained to point
straight from noise to data, draws better. Here: the diffusion backbone is tiny-dit, the flow is tiny-dit after 3000
steps of 64 on its own products with `--objective flow`: a third of the steps that tiny-dit has had, which it needs to
become a flow at all. On each follows the main job, 20 images of each state of a hazelnut. Both are sampled by DDIM,
which is Euler's method on a flow.
"""

from dataclasses import replace
from pathlib import Path

from evidence.results import Result, Runs
from evidence.steps import plan_of
from experiments.comparison import compare
from experiments.run import train
from experiments.table import arm

STEPS, BATCH, RATE = 3000, 64, 3e-4  # of tiny-dit's way to a flow
METHODS = ("flow", "diffusion")
VARIANTS = {"steps-5": 5, "steps-10": 10, "steps-50": 50}  # sampling variant -> its steps


def numbers(work: Path, quick: bool) -> list[dict]:
    """The rows of the comparison."""
    folder = work.resolve() / "flow"
    plan = plan_of("flow", quick)
    flow = plan.methods["flow"] | {"model": str(backbone(folder, quick))}
    return compare(replace(plan, methods=plan.methods | {"flow": flow}), folder)


def backbone(folder: Path, quick: bool) -> Path:
    """The file of tiny-dit made a flow on its own products."""
    steps = 5 if quick else STEPS
    settings = {"model": "tiny-dit", "objective": "flow", "data": f"generated:base/base/{5 if quick else 100}"}
    settings |= {"adapter": ["full"], "flips": "h", "rotations": "0", "batch": BATCH, "lr": RATE, "ema": 0.999}
    settings |= {"steps": steps, "sample_every": steps, "count": 1, "measure": 0, "cache": str(folder / "cache")}
    return train(folder / "backbone-flow", settings) / "model.safetensors"


def result(rows: list[dict]) -> Result:
    """The statements, and the table."""
    runs = Runs([row | {"arm": arm(row)} for row in rows], "arm")
    pairs = [(f"flow, {variant}", f"diffusion, {variant}", steps) for variant, steps in VARIANTS.items()]
    statements = [
        statement
        for flow, diffusion, steps in reversed(pairs)
        for statement in (
            runs.higher(f"in {steps} steps, class accuracy on the flow is higher", "class_accuracy", flow, diffusion),
            runs.lower(f"in {steps} steps, KID on the flow is lower", "kid_x1000", flow, diffusion),
        )
    ]
    titles = {f"{name}, {variant}": f"{name}, {steps} steps" for name in METHODS for variant, steps in VARIANTS.items()}
    return Result(statements, runs.table(titles, ["class_accuracy", "kid_x1000", "coverage", "diversity", "copies"]))

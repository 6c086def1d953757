"""A model distilled by consistency needs 4 steps for samples that otherwise take many.

Claimed by LCM (Luo et al. 2023, arXiv 2310.04378; as a LoRA, arXiv 2311.05556), for text. Here: tiny-dit, fine-tuned
on 20 images of each state of a hazelnut, and that model with its guidance distilled into a LoRA on the same images.
An evaluation is one pass of the network for one image; guidance takes two a step.
"""

from pathlib import Path

from evidence.results import Result, Runs
from evidence.steps import compared
from experiments.table import Column

COLUMNS = [Column("evaluations", "evaluations", ".0f"), "class_accuracy", "kid_x1000", "coverage", "diversity"]
VARIANTS = {  # sampling variant -> what it is, evaluations a step
    "ddim-50": ("fine-tuned, DDIM", 2),
    "ddim-8": ("fine-tuned, DDIM", 2),
    "ddim-4": ("fine-tuned, DDIM", 2),
    "dpm++-4": ("fine-tuned, DPM-Solver++", 2),
    "lcm-8": ("distilled", 1),
    "lcm-4": ("distilled", 1),
    "lcm-2": ("distilled", 1),
}


def numbers(work: Path, quick: bool) -> list[dict]:
    """The rows of the comparison."""
    return compared("few_steps", work, quick)


def result(rows: list[dict]) -> Result:
    """The statements, and the table."""
    steps = {variant: int(variant.rpartition("-")[2]) for variant in VARIANTS}
    runs = Runs([row | {"evaluations": VARIANTS[x][1] * steps[x]} for row in rows for x in [row["variant"]]], "variant")
    accuracy, coverage = "class_accuracy", "coverage"
    return Result(
        [
            runs.higher("class accuracy of 4 distilled steps is above that of 50 steps", accuracy, "lcm-4", "ddim-50"),
            runs.higher("it is above that of 4 undistilled steps", accuracy, "lcm-4", "ddim-4"),
            runs.higher("4 distilled steps cover more of the real images than 4 others", coverage, "lcm-4", "ddim-4"),
            runs.higher("at 8 evaluations, distilled class accuracy is higher", accuracy, "lcm-8", "ddim-4"),
            runs.higher("at 8 evaluations, distilled steps cover more of the real images", coverage, "lcm-8", "ddim-4"),
        ],
        runs.table({x: f"{what}, {steps[x]} steps" for x, (what, _) in VARIANTS.items()}, COLUMNS, "model, sampler"),
    )

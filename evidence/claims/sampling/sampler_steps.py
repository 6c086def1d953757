"""More sampler steps give better samples, up to a point.

Claimed by the defect study, for DiT-XL/2: more than 100 steps gave better samples, 200 and 500 hardly better ones, and
1000 worse ones. Here: tiny-dit, fine-tuned on 20 images of each state of a hazelnut, sampled in ever more steps with
DDIM, and with DDPM, which the study may have used.
"""

from pathlib import Path
from statistics import mean

from evidence.results import Result, Runs
from evidence.steps import compared


def numbers(work: Path, quick: bool) -> list[dict]:
    """The rows of the comparison."""
    return compared("sampler_steps", work, quick)


def result(rows: list[dict]) -> Result:
    """The statements, and the table."""
    runs, variants = Runs(rows, "variant"), dict.fromkeys(row["variant"] for row in rows)
    names = {x: x.upper().replace("-", ", ") for x in variants}
    best = min((x for x in variants if x.startswith("ddim")), key=lambda x: mean(runs.values("kid_x1000", x)))
    return Result(
        [
            runs.lower("100 steps have a lower KID than 10", "kid_x1000", "ddim-100", "ddim-10"),
            runs.lower("100 steps have a lower KID than 50", "kid_x1000", "ddim-100", "ddim-50"),
            runs.higher("1000 steps have a higher KID than 100", "kid_x1000", "ddim-1000", "ddim-100"),
        ],
        runs.table(names, ["class_accuracy", "kid_x1000", "coverage", "diversity"], "sampler, steps")
        + f"\nBy KID, DDIM is best in {best.rpartition('-')[2]} steps.\n",
    )

"""Weights that are random during training keep few-shot fine-tuning from corruption.

Claimed by Wu et al. 2024 (arXiv 2405.19931): on few images the samples first become alike to them, then for a while
noisy and unlike, and Gaussian weights soften that. They measured DreamBooth on Stable Diffusion. Here: all of tiny-dit
on 3 images of each state of a hazelnut, without augmentation; and DreamBooth on five photographs with the UNet of
tiny-sd, in the settings of the paper but for the rate and the number of steps (images one at a time, no average of the
weights). Each is trained with plain and with Gaussian weights (deviation 0.01). Samples of the same seeds are taken
every 60 and every 25 steps; their feature similarity and noise are those of metrics/statistics/corruption.py.
"""

from pathlib import Path

from evidence.results import Result, Runs
from evidence.steps import compared, plan_of, run_of
from experiments.table import Column
from metrics.statistics.corruption import stage
from training.monitor import measurements

METHODS = {"full": "plain", "full-bnn": "Gaussian"}
SHAPE = [
    Column("last", "similarity at the end"),
    Column("fall", "its largest fall"),
    Column("most", "most noise"),
    Column("stage", "share of runs with a corruption stage"),
]


def numbers(work: Path, quick: bool) -> dict:
    """ "classes": the rows of tiny-dit, "dreambooth": those of tiny-sd, each with the measured samples of its run."""
    rows = compared("few_images", work, quick, METHODS)
    for row in rows:
        row["looks"] = measurements(work / "few_images" / f"{row['method']}-{row['seed']}")
    subject = [
        {"method": method, "seed": seed, "looks": measurements(run_of("bayesian", work, quick, method, seed))}
        for method in METHODS
        for seed in range(plan_of("bayesian", quick).seeds)
    ]
    return {"classes": rows, "dreambooth": subject}


def result(numbers: dict) -> Result:
    """The statements, and the table."""
    classes, subject = (Runs([row | shape(*row["looks"]) for row in numbers[key]]) for key in ("classes", "dreambooth"))
    bnn, plain = "full-bnn", "full"
    statements = [
        statement
        for name, runs in (("DreamBooth", subject), ("tiny-dit", classes))
        for statement in (
            runs.higher(f"{name}: Gaussian weights end with a higher similarity", "last", bnn, plain),
            runs.lower(f"{name}: their similarity falls less on the way", "fall", bnn, plain),
        )
    ]
    statements += [
        classes.higher("tiny-dit: class accuracy is higher with Gaussian weights", "class_accuracy", bnn, plain),
        classes.lower("tiny-dit: KID is lower with Gaussian weights", "kid_x1000", bnn, plain),
    ]
    columns = ["class_accuracy", "kid_x1000", "coverage", "copies", *SHAPE]
    return Result(
        statements,
        f"tiny-dit:\n\n{classes.table(METHODS, columns, 'weights')}"
        f"\nDreamBooth with tiny-sd:\n\n{subject.table(METHODS, SHAPE, 'weights')}",
    )


def shape(steps: list, similarity: list, residual: list, deviations: list) -> dict:
    """What the measured samples of a run say: its corruption stage, 0 or 1, and the other numbers of SHAPE."""
    return {
        "stage": float(bool(stage(steps, similarity, residual, deviations))),
        "last": similarity[-1],
        "most": max(residual[1:]),
        "fall": max(max(similarity[: i + 1]) - f for i, f in enumerate(similarity)),
    }

"""A class embedding that starts near the right one needs fewer steps.

Claimed for DiT by the defect study (rows of ImageNet's "buckeye" for a hazelnut) and by DriveDiTFit (Tu et al. 2024,
arXiv 2407.15661: the class whose images look most alike). Here: tiny-dit, 20 images of each state of a hazelnut, 100
steps. The rows of the class table start at random, from the mean of all rows, or from an old class that is chosen by
features, by the model's own denoising error, or by its name.
"""

from pathlib import Path
from statistics import mean

from evidence.results import Result, Runs
from evidence.steps import compared

STARTS = {
    "random": "random numbers",
    "mean": "the mean of all rows",
    "features": "the class most alike by features",
    "nearest": "the class with the lowest denoising error",
    "name": "the same state of other products",
}


def numbers(work: Path, quick: bool) -> list[dict]:
    """The rows of the comparison."""
    return compared("starts", work, quick)


def result(rows: list[dict]) -> Result:
    """The statements, and the table."""
    runs = Runs(rows)
    best = max(("features", "nearest", "name"), key=lambda start: mean(runs.values("class_accuracy", start)))
    return Result(
        [
            runs.higher(f"class accuracy from {STARTS[a]} is above that from {STARTS[b]}", "class_accuracy", a, b)
            for a in dict.fromkeys((best, "features"))
            for b in ("random", "mean")
        ],
        runs.table(STARTS, ["class_accuracy", "kid_x1000", "coverage"], "rows start from"),
    )

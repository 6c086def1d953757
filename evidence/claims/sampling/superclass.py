"""Guidance from the superclass keeps what varies within a kind, guidance from the null class does not.

Claimed by FineDiffusion (Pan et al. 2024, arXiv 2402.18331). Here: tiny-dit, fine-tuned on 20 images of each state of
two products that it has not seen, with rows of superclasses beside those of the classes; a superclass replaces the
class in a tenth of the images. Both kinds of guidance are sampled at three scales, and guidance in two stages (first to
the superclass, then to the class) at one. With one product alone, hazelnuts, a first try showed no difference: both
rows learn the same.
"""

from pathlib import Path

from evidence.results import Result, Runs
from evidence.steps import compared

COLUMNS = ["class_accuracy", "kid_x1000", "precision", "recall", "coverage", "diversity"]
STATEMENTS = {  # key of the numbers: what is expected of guidance from the superclass
    "recall": "recall is higher",
    "class_accuracy": "class accuracy is higher",
    "precision": "precision is higher",
}


def numbers(work: Path, quick: bool) -> list[dict]:
    """The rows of the comparison."""
    return compared("superclass", work, quick)


def result(rows: list[dict]) -> Result:
    """The statements, and the table."""
    runs, variants = Runs(rows, "variant"), dict.fromkeys(row["variant"] for row in rows)
    statements = [
        runs.higher(f"at scale {scale}, {text} from the superclass", key, f"superclass-{scale}", f"null-{scale}")
        for scale in (3, 5, 8)
        for key, text in STATEMENTS.items()
    ]
    statements += [
        runs.higher(f"in two stages, {text} than from null at scale 3", key, "two-stage-2-3", "null-3")
        for key, text in STATEMENTS.items()
        if key != "recall"
    ]
    return Result(statements, runs.table({x: x.replace("-", " ") for x in variants}, COLUMNS, "guidance, scale"))

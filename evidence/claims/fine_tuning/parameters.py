"""Few weights learn from few images what all of them learn, and cost less.

Claimed by the defect study and DiffFit (Xie et al. 2023, arXiv 2304.06648) for biases against full fine-tuning, by LoRA
(Hu et al. 2021, arXiv 2106.09685) for size and time, and by the logo study for ranks: low ones overfit first. Here:
tiny-dit on 3 images of each state of a hazelnut, without augmentation, 300 steps of 32 for all methods, and a lower
learning rate for all weights (few_images.toml). Seconds a step and memory are measured in short runs, the methods in
turn, so that all meet the same machine.
"""

from pathlib import Path

from evidence.results import Result, Runs
from evidence.steps import compared, plan_of
from experiments.comparison import train_method
from experiments.log import costs, read_log
from experiments.table import Column

METHODS = {
    "biases": "biases and norms",
    "lora-2": "LoRA of rank 2",
    "lora-32": "LoRA of rank 32",
    "full": "all weights",
}
COLUMNS = [
    *("trained", "megabytes", "step_seconds", "peak_gib"),
    *("class_accuracy", "kid_x1000", "coverage", "copies", "authentic"),
    Column("best_step", "step of the lowest held-out loss", ".0f"),
    Column("rise", "its rise from there", ".4f"),
]


def numbers(work: Path, quick: bool) -> list[dict]:
    """The rows of the comparison, with the costs of the short runs and the turn of the held-out loss."""
    rows, short = compared("few_images", work, quick, METHODS), plan_of("few_images", True)
    for row in sorted(rows, key=lambda row: row["seed"]):
        timed = costs(train_method(short, work.resolve() / "few_images_timed", row["method"], row["seed"]))
        row |= {key: timed[key] for key in ("step_seconds", "peak_gib")}
        lines = read_log(work / "few_images" / f"{row['method']}-{row['seed']}")
        held_out = {line["step"]: line["val"] for line in lines if "val" in line}
        row["best_step"] = min(held_out, key=held_out.get)
        row["rise"] = held_out[max(held_out)] - held_out[row["best_step"]]
    return rows


def result(rows: list[dict]) -> Result:
    """The statements, and the table."""
    runs, statements = Runs(rows), []
    for method in ("biases", "lora-32"):
        statements += [
            runs.higher(f"class accuracy of {METHODS[method]} is above all weights'", "class_accuracy", method, "full"),
            runs.lower(f"KID of {METHODS[method]} is below all weights'", "kid_x1000", method, "full"),
            runs.lower(f"a step of {METHODS[method]} takes less time", "step_seconds", method, "full"),
        ]
    statements += [
        runs.lower(
            "the held-out loss turns earlier at rank 2 than at rank 32", "best_step", "lora-2", "lora-32", ".0f"
        ),
        runs.higher("it rises more after that at rank 2", "rise", "lora-2", "lora-32", ".4f"),
    ]
    return Result(statements, runs.table(METHODS, COLUMNS, "what trains"))

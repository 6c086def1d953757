"""Few weights learn from few images what all of them learn, and cost less.

Claimed by the defect study and DiffFit (Xie et al. 2023, arXiv 2304.06648) for biases against full fine-tuning, by LoRA
(Hu et al. 2021, arXiv 2106.09685) for size and time, and by the logo study for ranks: that low ones overfit first.
Here: tiny-dit on 3 images of each state of a hazelnut, without augmentation, 300 steps of 32 for all, all weights at a
lower rate (few_images.toml). Seconds a step and memory are those of short runs, the methods in turn, so that all meet
the same machine.
"""

import json

import compare
from evidence import below, compared, of, planned, spread, table, verdicts

METHODS = {"biases": "biases and norms", "lora-2": "LoRA, rank 2", "lora-32": "LoRA, rank 32", "full": "all weights"}
COLUMNS = {
    "trained": ("trained", 0),
    "megabytes": ("MB left", 2),
    "step_seconds": ("s a step", 2),
    "peak_gib": ("peak, GiB", 2),
    "class_accuracy": ("class accuracy", 2),
    "kid_x1000": ("KID x1000", 1),
    "coverage": ("coverage", 2),
    "copies": ("copies", 2),
    "authentic": ("authentic", 2),
    "best_step": ("held-out loss lowest at step", 0),
    "rise": ("its rise from there", 4),
}


def numbers(work, quick):
    rows, short = compared("few_images", work, quick, METHODS), compare.shortened(planned("few_images", quick))
    for row in sorted(rows, key=lambda row: row["seed"]):
        run = compare.trained(short, work.resolve() / "few_images_timed", row["method"], row["seed"])
        row |= {key: compare.cost(run)[key] for key in ("step_seconds", "peak_gib")}
        lines = (work / "few_images" / f"{row['method']}-{row['seed']}" / "log.jsonl").read_text().splitlines()
        held_out = {line["step"]: line["val"] for line in map(json.loads, lines) if "val" in line}
        row["best_step"] = min(held_out, key=held_out.get)
        row["rise"] = held_out[max(held_out)] - held_out[row["best_step"]]
    return rows


def section(rows):
    lines = [
        [text, *(spread(of(rows, key, method=method), digits) for key, (_, digits) in COLUMNS.items())]
        for method, text in METHODS.items()
    ]
    asked, kid, best, rise, seconds = (
        {method: of(rows, key, method=method) for method in METHODS}
        for key in ("class_accuracy", "kid_x1000", "best_step", "rise", "step_seconds")
    )
    return table(["what trains", *(title for title, _ in COLUMNS.values())], lines) + verdicts(
        {
            "biases and norms show the asked class more often than all weights": (asked["biases"], asked["full"]),
            "their samples are nearer to real images (KID)": below(kid["biases"], kid["full"]),
            "a step of them takes less time": below(seconds["biases"], seconds["full"]),
            "LoRA of rank 32 shows the asked class more often than all weights": (asked["lora-32"], asked["full"]),
            "its samples are nearer to real images (KID)": below(kid["lora-32"], kid["full"]),
            "a step of it takes less time": below(seconds["lora-32"], seconds["full"]),
            "the held-out loss turns earlier at rank 2 than at rank 32": below(best["lora-2"], best["lora-32"]),
            "it rises more after that": (rise["lora-2"], rise["lora-32"]),
        }
    )

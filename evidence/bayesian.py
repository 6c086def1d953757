"""Weights that are random while they train keep few-shot fine-tuning from corruption.

Claimed by Wu et al. 2024 (arXiv 2405.19931): on few images the samples first become alike to them, then for a while
noisy and unlike, and Gaussian weights soften that. They measured DreamBooth on Stable Diffusion. Here: all of tiny-dit
on 3 images of each state of a hazelnut, without augmentation; and DreamBooth on five photographs with the UNet of
tiny-sd, in the settings of the paper but for the rate and the number of steps (images one at a time, no average of the
weights). Each with plain and with Gaussian weights (deviation 0.01); samples of the same seeds are drawn every 60 and
every 25 steps, and their fidelity and noise are those of metrics/statistics/corruption.py.
"""

from recipes.watch import looks

import compare
from evidence import below, compared, of, planned, spread, table, verdicts
from metrics.statistics.corruption import stage

METHODS = {"full": "plain", "full-bnn": "Gaussian"}
SHAPE = {"last": "fidelity at the end", "fall": "its largest fall", "most": "most noise"}  # of a run's looks


def numbers(work, quick):
    """ "classes": the rows of tiny-dit, "dreambooth": those of tiny-sd, each with the looks of its run."""
    rows = compared("few_images", work, quick, METHODS)
    for row in rows:
        row["looks"] = looks(work / "few_images" / f"{row['method']}-{row['seed']}")
    plan, subject = planned("bayesian", quick), []
    for method in plan.methods:
        for seed in range(plan.seeds):
            run = compare.trained(plan, work.resolve() / "bayesian", method, seed)
            subject.append({"method": method, "seed": seed, "looks": looks(run)})
    return {"classes": rows, "dreambooth": subject}


def section(found):
    rows, subject = ([row | shape(row["looks"]) for row in found[key]] for key in ("classes", "dreambooth"))
    keys = {
        "class_accuracy": "class accuracy",
        "kid_x1000": "KID x1000",
        "coverage": "coverage",
        "copies": "copies",
    } | SHAPE
    text = "tiny-dit:\n\n" + listed(rows, keys)
    text += verdicts(
        {
            "with Gaussian weights more samples are of the asked class": sides(rows, "class_accuracy"),
            "they are nearer to real images (KID)": below(*sides(rows, "kid_x1000")),
        }
        | steadier(rows)
    )
    return text + "\nDreamBooth with tiny-sd:\n\n" + listed(subject, SHAPE) + verdicts(steadier(subject))


def shape(seen) -> dict:
    """What the looks of a run say: whether there is a corruption stage, and the numbers that SHAPE names."""
    steps, fidelity, residual, noise = seen
    return {
        "stage": stage(steps, fidelity, residual, noise),
        "last": fidelity[-1],
        "most": max(residual[1:]),
        "fall": max(max(fidelity[: i + 1]) - f for i, f in enumerate(fidelity)),
    }


def listed(rows: list[dict], keys: dict[str, str]) -> str:
    """The table of plain and Gaussian weights."""
    lines = [
        [
            text,
            *(spread(of(rows, key, method=method), 1 if key == "kid_x1000" else 2) for key in keys),
            str(sum(bool(found) for found in of(rows, "stage", method=method))),
        ]
        for method, text in METHODS.items()
    ]
    return table(["weights", *keys.values(), "runs with a corruption stage"], lines)


def sides(rows: list[dict], key: str) -> list[list[float]]:
    """The runs with Gaussian and with plain weights."""
    return [of(rows, key, method=method) for method in ("full-bnn", "full")]


def steadier(rows: list[dict]) -> dict:
    """For `verdicts`: what is claimed of the way that the looks take."""
    return {
        "with Gaussian weights they are more like the training images at the end": sides(rows, "last"),
        "their fidelity falls less on the way": below(*sides(rows, "fall")),
    }

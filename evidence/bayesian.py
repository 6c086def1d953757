"""Weights that are random while they train keep few-shot fine-tuning from corruption.

Claimed by Wu et al. 2024 (arXiv 2405.19931): on few images the samples first become alike to them, then for a while
noisy and unlike, and Gaussian weights soften that. They measured DreamBooth on Stable Diffusion. Here: all of tiny-dit
trains on 3 images of each state of a hazelnut, without augmentation, with plain and with Gaussian weights (deviation
0.01); the same seeds are drawn every 60 steps, and their fidelity and noise are those of metrics/corruption.py.
"""
from metrics.corruption import stage
from recipes.watch import looks

from . import below, compared, of, spread, table, verdicts

METHODS = {"full": "plain", "full-bnn": "Gaussian"}


def numbers(work, quick):
    rows = compared("few_images", work, quick, METHODS)
    for row in rows:
        row["looks"] = looks(work / "few_images" / f"{row['method']}-{row['seed']}")
    return rows


def section(rows):
    for row in rows:
        steps, fidelity, residual, noise = row["looks"]
        row["stage"] = stage(steps, fidelity, residual, noise)
        row["fall"] = max(max(fidelity[:i + 1]) - f for i, f in enumerate(fidelity))
        row["last"], row["most"] = fidelity[-1], max(residual[1:])
    keys = ("asked_state", "kid_x1000", "coverage", "copies", "last", "fall", "most")
    lines = [[text, *(spread(of(rows, key, method=method), 1 if key == "kid_x1000" else 2) for key in keys),
              str(sum(bool(stage) for stage in of(rows, "stage", method=method)))] for method, text in METHODS.items()]
    found = {key: [of(rows, key, method=method) for method in ("full-bnn", "full")] for key in keys}
    shown, runs = sum(bool(stage) for stage in of(rows, "stage", method="full")), len(rows) // 2
    head = ["weights", "asked class", "KID x1000", "coverage", "copies", "fidelity at the end", "its largest fall",
            "most noise", "runs with a corruption stage"]
    plain = f"\nA corruption stage shows in {shown} of {runs} runs with plain weights.\n"
    return table(head, lines) + plain + verdicts({
        "with Gaussian weights more samples are of the asked class": found["asked_state"],
        "they are nearer to real images (KID)": below(*found["kid_x1000"]),
        "they are more like the training images at the end": found["last"],
        "their fidelity falls less on the way": below(*found["fall"])})

"""Weights that are random while they train keep few-shot fine-tuning from corruption.

Claimed by Wu et al. 2024 (arXiv 2405.19931): on few images the samples first become alike to them, then for a while
noisy and unlike, and Gaussian weights soften that. They measured DreamBooth on Stable Diffusion. Here: all of tiny-dit
trains on 3 images of each state of a hazelnut, with plain and with Gaussian weights (deviation 0.01); the same seeds are
drawn every 75 steps, and their fidelity and grain are those of metrics/corruption.py.
"""
import json

from metrics.corruption import stage

from . import compared, of, spread, table, verdict

METHODS = {"plain": "plain", "bnn": "Gaussian weights"}


def numbers(work, quick):
    rows = compared("bayesian", work, quick)
    for row in rows:
        log = (work / "bayesian" / f"{row['method']}-{row['seed']}" / "log.jsonl").read_text().splitlines()
        looks = [line for line in map(json.loads, log) if "fidelity" in line]
        row["looks"] = {key: [line[key] for line in looks] for key in ("step", "fidelity", "residual", "noise")}
    return rows


def section(rows):
    for row in rows:
        steps, fidelity, residual, noise = row["looks"].values()
        row["stage"] = stage(steps, fidelity, residual, noise)
        row["fall"] = max(max(fidelity[:i + 1]) - f for i, f in enumerate(fidelity))
        row["grain"] = max(residual[1:])
    keys = ("asked_state", "kid_x1000", "coverage", "copies", "fall", "grain")
    lines = [[text, *(spread(of(rows, key, method=method), 1 if key == "kid_x1000" else 2) for key in keys),
              str(sum(bool(stage) for stage in of(rows, "stage", method=method)))] for method, text in METHODS.items()]
    falls, asked = ({method: of(rows, key, method=method) for method in METHODS} for key in ("fall", "asked_state"))
    shown = sum(bool(row["stage"]) for row in rows if row["method"] == "plain")
    head = ["weights", "asked class", "KID x1000", "coverage", "copies", "largest fall of fidelity", "most grain",
            "runs with a corruption stage"]
    return (table(head, lines) + f"\nA corruption stage shows in {shown} of {len(falls['plain'])} plain runs. Gaussian "
            f"weights fall less: **{verdict([-f for f in falls['bnn']], [-f for f in falls['plain']])}**; more of their "
            f"samples are of the asked class: **{verdict(asked['bnn'], asked['plain'])}**.\n")

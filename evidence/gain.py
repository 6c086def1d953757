"""Samples of a few-shot model raise a classifier that would have only the few images.

What the defect study would measure its samples by. Here: 3 images of each state of a hazelnut, tiny-dit fine-tuned on
them (the run of "few weights" with biases and norms), 60 samples of each state; a classifier learns from the images,
the samples, or both, in the same number of steps (metrics/downstream/gain.py), and is tested on real photographs. The
control arms must not gain; the oracle, which has 60 real images of each state in place of the samples, is the ceiling.
"""

from statistics import mean

import torch

import compare
import sample
from data import load
from data.output.samples import GRID, read_samples
from data.transforms import Transform, to_tensor
from evidence import planned, spread, table, verdicts
from metrics.downstream.gain import arms, gain, probe, recalls

CLASSES = [f"hazelnut/{state}" for state in ("good", "crack", "hole", "cut", "print")]
COUNT = 60
CONTROLS = ("real twice", "real, strong")


def numbers(work, quick):
    """arm -> for each seed the recalls of the five states."""
    plan, count = planned("few_images", quick), 2 if quick else COUNT
    few, more, test = (
        pair(load(f"generated:hazelnut/{source}", Transform(64)))
        for source in (plan.train["data"].split("hazelnut/")[1], f"oracle/{count}", f"test/{count}")
    )
    found = {"count": count, "arms": {}}
    for seed in range(plan.seeds):
        run = compare.trained(plan, work.resolve() / "few_images", "biases", seed)
        out = run / "samples-for-gain"
        if not (out / GRID).exists():
            sample.main(
                [
                    "--run",
                    str(run),
                    "--count",
                    str(count),
                    "--steps",
                    "5" if quick else "25",
                    "--seed",
                    str(1000 + seed),
                    "--out",
                    str(out),
                ]
            )
        drawn = pair(read_samples(out, Transform(64), CLASSES))
        for name, (sources, strong) in arms(few, drawn, more, seed).items():
            network = probe(sources, len(CLASSES), seed, strong, **({"steps": 5} if quick else {}))
            found["arms"].setdefault(name, []).append(recalls(network, *test, len(CLASSES)))
    return found


def pair(images) -> tuple[torch.Tensor, torch.Tensor]:
    return to_tensor(images.pixels), images.labels


def section(found):
    accuracy = {name: [mean(run) for run in runs] for name, runs in found["arms"].items()}
    lines = []
    for name, values in accuracy.items():
        difference, half = gain(values, accuracy["real"])
        recall = [mean(run[i] for run in found["arms"][name]) for i in range(len(CLASSES))]
        lines.append(
            [
                name,
                spread(values),
                "" if name == "real" else f"{difference:+.2f} +- {half:.2f}",
                *(f"{value:.2f}" for value in recall),
            ]
        )
    best = max(CONTROLS, key=lambda name: mean(accuracy[name]))
    return (
        table(["trained on", "balanced accuracy", "gain", *(name.split("/")[1] for name in CLASSES)], lines)
        + f"\n{found['count']} samples and {found['count']} test photographs of each state; the interval of a gain "
        + f"is Student's at 95 % over the runs; chance is {1 / len(CLASSES):.2f}.\n"
        + verdicts(
            {
                "real and synthetic images are better than the real ones alone": (
                    accuracy["real + synthetic"],
                    accuracy["real"],
                ),
                f"better than the better control ({best})": (accuracy["real + synthetic"], accuracy[best]),
                "with shuffled labels they do not gain": (accuracy["real + synthetic"], accuracy["real + shuffled"]),
            }
        )
    )

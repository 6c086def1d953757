"""Samples of a few-shot model raise a classifier that would have only the few images.

Claimed by nobody in this form; the defect study would measure its samples by it. Here: 3 images of each state of a
hazelnut, tiny-dit fine-tuned on them (the runs of "few trainable weights" with biases and norms), 60 samples of each
state. A classifier learns from the images, the samples, or both, in the same number of steps
(metrics/downstream/gain.py), and is tested on real photographs. Two arms are controls: the images twice, and the images
with strong augmentation. The oracle, which has 60 real images of each state in place of the samples, is the ceiling.
"""

from pathlib import Path
from statistics import mean

import torch

from data import ImageSet, load
from data.transforms import Transform, to_tensor
from evidence.results import Result, arms_table, higher
from evidence.steps import SIDE, plan_of, run_of, samples
from metrics.downstream.gain import arms, probe, recalls

CLASSES = [f"hazelnut/{state}" for state in ("good", "crack", "hole", "cut", "print")]
COUNT = 60
CONTROLS = ("real twice", "real, strong")


def numbers(work: Path, quick: bool) -> dict:
    """arm -> for each seed the recalls of the five states."""
    plan, count = plan_of("few_images", quick), 2 if quick else COUNT
    sources = (plan.train["data"], *(f"generated:hazelnut/{split}/{count}" for split in ("oracle", "test")))
    few, more, test = (pair(load(source, Transform(SIDE))) for source in sources)
    results = {"count": count, "arms": {}}
    for seed in range(plan.seeds):
        run = run_of("few_images", work, quick, "biases", seed)
        settings = {"run": run, "count": count, "steps": 25, "seed": 1000 + seed}
        synthetic = pair(samples(run / "samples-for-gain", CLASSES, quick, **settings))
        for name, (sources, strong) in arms(few, synthetic, more, seed).items():
            network = probe(sources, len(CLASSES), seed, strong, **({"steps": 5} if quick else {}))
            results["arms"].setdefault(name, []).append(recalls(network, *test, len(CLASSES)))
    return results


def pair(images: ImageSet) -> tuple[torch.Tensor, torch.Tensor]:
    """Pixels (N, 3, S, S) and labels (N,)."""
    return to_tensor(images.pixels), images.labels


def result(numbers: dict) -> Result:
    """The statements, and the table."""
    accuracy, table = arms_table(numbers["arms"], [name.split("/")[1] for name in CLASSES], ".2f")
    both, control = accuracy["real + synthetic"], max(CONTROLS, key=lambda name: mean(accuracy[name]))
    return Result(
        [
            higher("accuracy with samples is above that of the real images alone", both, accuracy["real"]),
            higher(f"it is above that of the better control ({control})", both, accuracy[control]),
            higher("it is above that with shuffled labels", both, accuracy["real + shuffled"]),
        ],
        table
        + f"\n{numbers['count']} samples and {numbers['count']} test photographs of each state; the interval of a gain "
        f"is Student's at 95 % over the runs; chance is {1 / len(CLASSES):.2f}.\n",
    )

"""Do samples teach a classifier? Every arm of gain.py on one's own images, with intervals over seeds."""

from statistics import mean

from data import ImageSet
from data.transforms import to_tensor
from metrics.downstream.gain import STEPS, Source, arms, gain, probe, recalls

BASELINES = ("real", "real, strong")  # what a gain is over: the few images, and these with strong augmentation


def gain_table(real: ImageSet, fake: ImageSet, train: ImageSet, seeds: int, steps: int = STEPS) -> dict:
    """Balanced accuracies on `real`, of classifiers of `train` with and without the samples `fake`, arm by arm.

    An arm's row has its mean accuracy and its gains over both BASELINES, each with half its 95 % interval over `seeds`
    trainings. Raises ValueError for a single class, and for a class without images.
    """
    if len(real.classes) < 2:
        raise ValueError("a classifier needs two classes that real images, samples and training images share")
    x, y = to_tensor(real.pixels), real.labels
    accuracies = {}
    for seed in range(seeds):
        for name, (sources, strong) in arms(source(train), source(fake), seed=seed).items():
            network = probe(sources, len(real.classes), seed, strong, steps=steps)
            accuracies.setdefault(name, []).append(mean(recalls(network, x, y, len(real.classes))))
    rows = {}
    for name, values in accuracies.items():
        rows[name] = {"accuracy": mean(values)}
        for base in BASELINES:
            difference, half = gain(values, accuracies[base])
            rows[name] |= {f"over {base}": difference} | ({f"over {base}, +-": half} if seeds > 1 else {})
    return {"classifier": f"{seeds} trainings of {steps} steps", "real": len(y), "train": len(train.pixels)} | {
        "samples": len(fake.pixels),
        "gain": rows,
    }


def source(images: ImageSet) -> Source:
    """Images and labels for the classifier."""
    return to_tensor(images.pixels), images.labels

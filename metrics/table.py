"""All numbers about samples: are they what was asked for, like real images, varied, and no copies.

Every number stands with how many images it was made of. A statistic that needs more images than there are is left out,
and the sentence that says why is kept under `left_out`.
"""

import torch
from torch import Tensor
from torch.nn import functional as F

from data import ImageSet
from data.transforms import to_tensor
from metrics.networks import Network
from metrics.statistics.clusters import intra_cluster
from metrics.statistics.frechet import frechet
from metrics.statistics.inception_score import inception_score
from metrics.statistics.kid import kid, kid_interval
from metrics.statistics.nearest import authentic, by_image, copy_report, ratio, turned
from metrics.statistics.neighbours import density_coverage, precision_recall
from metrics.statistics.rows import distances

VIEWS = 8  # of a training image: four quarter turns, mirrored or not
NEIGHBOURS = 5  # training images that the ratio of distances is of, or all of them
SMALL = 64  # side that pixels are compared at, at most


def measure(
    network: Network, fake: ImageSet, real: ImageSet, train: ImageSet | None = None, judge: Network | None = None
) -> dict:
    """Numbers about the samples `fake`, beside real images held out of training and those trained on.

    The three sets share their classes, as positions in `classes`. judge: a classifier; how many samples it takes for
    their own class is told only if it knows all of these.
    """
    f, f_real = (network.embed(to_tensor(images.pixels)) for images in (fake, real))
    numbers = {"network": network.name, "samples": len(f), "real": len(f_real)}
    left_out = {}

    def add(name, statistic, *sets):
        try:
            found = statistic(*sets)
            numbers.update(found if isinstance(found, dict) else {name: found})
        except ValueError as error:
            left_out[name] = str(error)

    add("kid", likeness, f_real, f)
    add("fid", frechet, f_real, f)
    add("precision", lambda *sets: dict(zip(("precision", "recall"), precision_recall(*sets))), f_real, f)
    add("density", lambda *sets: dict(zip(("density", "coverage"), density_coverage(*sets))), f_real, f)
    if train is not None:
        f_train = network.embed(turned(to_tensor(train.pixels)))  # (8 T, D)
        numbers["train"] = len(train.pixels)
        add("kid_real", lambda x, y: {"kid_real_x1000": 1000 * kid(x, y)}, f_real, f_train[: len(train.pixels)])
        add("diversity", variety, f, f_train)
        add("copies", copies, f, f_real, f_train)
        add("copies_pixels", pixel_copies, fake, real, train)
    add("by_class", by_class, f_real, real, f, fake)
    if judge is not None:
        numbers |= class_accuracy(judge, fake)
    return numbers | ({"left_out": left_out} if left_out else {})


def likeness(f_real, f) -> dict[str, float]:
    """KID and its deviation over resamples, both times 1000."""
    deviation = kid_interval(f_real, f, torch.Generator().manual_seed(0))[1]
    return {"kid_x1000": 1000 * kid(f_real, f), "kid_deviation_x1000": 1000 * deviation}


def variety(f, f_train) -> dict[str, float]:
    """Intra-cluster distance, its clusters being the training images in all their views."""
    f, f_train = f.cpu().double(), f_train.cpu().double()
    found = intra_cluster(by_image(f, f_train, VIEWS), distances(f, f))
    return {"diversity": found.pop("intra_cluster")} | found


def copies(f, f_real, f_train) -> dict[str, float]:
    """Distances to the training images, and what they say about copies."""
    few = min(NEIGHBOURS, len(f_train) // VIEWS)
    found = {"authentic": authentic(f, f_train, VIEWS).mean(), "ratio": ratio(f, f_train, few, VIEWS).median()}
    return copy_report(f, f_real, f_train) | {name: value.item() for name, value in found.items()}


def pixel_copies(fake: ImageSet, real: ImageSet, train: ImageSet) -> dict[str, float]:
    """The same in pixels."""
    small = [
        F.interpolate(x, (SMALL, SMALL), mode="area") if x.shape[-1] > SMALL else x
        for x in (to_tensor(images.pixels) for images in (fake, real, train))
    ]
    found = copy_report(*(x.flatten(1) for x in (*small[:2], turned(small[2]))))
    return {f"{name}_pixels": value for name, value in found.items()}


def by_class(f_real, real: ImageSet, f, fake: ImageSet) -> dict[str, dict]:
    """class -> its distances and how many images they are of; of all classes that both have twice at least."""
    found = {}
    for label, name in enumerate(real.classes if len(real.classes) > 1 else []):
        x, y = f_real[real.labels == label], f[fake.labels == label]
        if min(len(x), len(y)) > 1:
            found[name] = {"fid": frechet(x, y), "kid_x1000": 1000 * kid(x, y), "samples": len(y), "real": len(x)}
    return {"by_class": found} if found else {}


def class_accuracy(judge: Network, images: ImageSet) -> dict:
    """The share that the judge takes for its own class, of all and by class, and the inception score of its answers."""
    among = answers(judge, images)
    if among is None:
        return {}
    right = (among.argmax(1) == images.labels).double()
    shares = {
        name: right[images.labels == i].mean().item()
        for i, name in enumerate(images.classes)
        if (images.labels == i).any()
    }
    return {
        "class_accuracy": right.mean().item(),
        "class_accuracy_by_class": shares,
        "inception_score": inception_score(among)[0],
    }


def answers(judge: Network, images: ImageSet) -> Tensor | None:
    """The judge's logits among the classes of the images, (N, classes); None if it does not know all of these."""
    if not set(images.classes) <= set(judge.classes):
        return None
    return judge.logits(to_tensor(images.pixels))[:, [judge.classes.index(name) for name in images.classes]]


def as_text(numbers: dict) -> str:
    """Two columns, name and value; classes, and what was left out, indented under their name."""
    lines = []
    for name, value in numbers.items():
        if isinstance(value, dict):
            lines += [] if name == "class_accuracy_by_class" else [name]
            lines += [f"  {key:<26}{shown(found)}" for key, found in value.items()]
        else:
            lines.append(f"{name:<28}{shown(value)}")
    return "\n".join(lines)


def shown(value) -> str:
    """A value of the table, numbers in a column of 8."""
    if isinstance(value, dict):
        return " ".join(f"{key} {shown(found).strip()}" for key, found in value.items())
    if isinstance(value, str):
        return f"{value:>8}"
    return f"{value:8.3f}" if isinstance(value, float) else f"{value:8}"

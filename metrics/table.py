"""All numbers about samples in one table: are they of their class, like real images, varied, and no copies?

Every number stands beside the counts of images that it comes from. A statistic that needs more images than there are
is left out, and `left_out` holds the sentence that says why.
"""

import math
from collections.abc import Callable

import torch
from torch import Tensor
from torch.nn import functional as F

from data import ImageSet
from data.transforms import to_tensor
from metrics.alignment.subject import subject_score
from metrics.networks import Network
from metrics.statistics.clusters import intra_cluster
from metrics.statistics.frechet import frechet
from metrics.statistics.inception_score import inception_score
from metrics.statistics.kid import kid, kid_interval
from metrics.statistics.nearest import authentic, by_image, copy_report, ratio, turned
from metrics.statistics.neighbours import density_coverage, precision_recall
from metrics.statistics.rows import distances
from metrics.textures.table import measure_patches

VIEWS = 8  # of a training image: four quarter turns, mirrored or not
NEIGHBOURS = 5  # training images in the ratio of distances, or all of them if there are fewer
REASONS = dict.fromkeys(  # for numbers that are not finite
    ("diversity", "intra_cluster"), "no training image is the nearest to two samples"
)
ENOUGH = 50  # images of a class in both sets below which its FID ranks nothing
SMALL = 64  # pixels a side at which pixels are compared, at most


def measure(
    network: Network, fake: ImageSet, real: ImageSet, train: ImageSet | None = None, classifier: Network | None = None
) -> dict:
    """The table of the samples `fake`, beside real images held out of training and the training images.

    The three sets share their classes, as positions in `classes`. The class accuracy needs a classifier that knows all
    of these classes.
    """
    f, f_real = (network.embed(to_tensor(images.pixels)) for images in (fake, real))  # (N, D), (M, D)
    numbers = {"network": network.name, "width": f.shape[1], "samples": len(f), "real": len(f_real)}
    left_out = {}

    def add(name: str, statistic: Callable[..., float | dict], *sets: Tensor | ImageSet) -> None:
        try:
            value = statistic(*sets)
            numbers.update(value if isinstance(value, dict) else {name: value})
        except ValueError as error:
            left_out[name] = str(error)

    add("kid", kid_and_deviation, f_real, f)
    add("fid", frechet, f_real, f)
    add("precision", lambda *sets: dict(zip(("precision", "recall"), precision_recall(*sets))), f_real, f)
    add("density", lambda *sets: dict(zip(("density", "coverage"), density_coverage(*sets))), f_real, f)
    if train is not None:
        f_train = network.embed(turned(to_tensor(train.pixels)))  # (8 T, D)
        numbers["train"] = len(train.pixels)
        add("kid_real", lambda x, y: {"kid_real_x1000": 1000 * kid(x, y)}, f_real, f_train[: len(train.pixels)])
        add("diversity", diversity, f, f_train)
        add("copies", copies, f, f_real, f_train)
        add("copies_pixels", pixel_copies, fake, real, train)
    if getattr(network, "score", ""):
        names = network.score, f"{network.score}_real"
        add(network.score, lambda *sets: dict(zip(names, subject_score(*sets))), f, f_real)
    add("by_class", by_class, f_real, real, f, fake)
    if any("fid" not in row for row in numbers.get("by_class", {}).values()):
        left_out["fid by class"] = f"FID of fewer than {ENOUGH} images ranks nothing; it takes {ENOUGH} of each class"
    if classifier is not None:
        numbers |= class_accuracy(classifier, fake)
    return without_nan(numbers | ({"left_out": left_out} if left_out else {}))


def measure_in(network: Network | None, fake: ImageSet, real: ImageSet, train: ImageSet | None, judge: Network) -> dict:
    """The table in a network, or of patches without one; with the class accuracy by the judge, if it knows them."""
    if network is None:
        return measure_patches(fake, real, train) | class_accuracy(judge, fake)
    return measure(network, fake, real, train, judge)


def without_nan(numbers: dict) -> dict:
    """The table without numbers that are not finite; `left_out` has the reason for each."""
    odd = [name for name, value in numbers.items() if isinstance(value, float) and not math.isfinite(value)]
    reasons = {name: REASONS.get(name, "not a finite number") for name in odd}
    kept = {name: value for name, value in numbers.items() if name not in odd and name != "left_out"}
    left_out = numbers.get("left_out", {}) | reasons
    return kept | ({"left_out": left_out} if left_out else {})


def kid_and_deviation(f_real: Tensor, f: Tensor) -> dict[str, float]:
    """KID of features (M, D) and (N, D), and its standard deviation over resamples, both times 1000."""
    deviation = kid_interval(f_real, f, torch.Generator().manual_seed(0))[1]
    return {"kid_x1000": 1000 * kid(f_real, f), "kid_deviation_x1000": 1000 * deviation}


def diversity(f: Tensor, f_train: Tensor) -> dict[str, float]:
    """Intra-cluster distance of features (N, D); a cluster belongs to a training image in all its views (8 T, D)."""
    f, f_train = f.cpu().double(), f_train.cpu().double()
    row = intra_cluster(by_image(f, f_train, VIEWS), distances(f, f))
    return {"diversity": row.pop("intra_cluster")} | row


def copies(f: Tensor, f_real: Tensor, f_train: Tensor) -> dict[str, float]:
    """Distances of features (N, D) and (M, D) to the training images (8 T, D), and the shares of copies."""
    few = min(NEIGHBOURS, len(f_train) // VIEWS)
    row = {"authentic": authentic(f, f_train, VIEWS).mean(), "ratio": ratio(f, f_train, few, VIEWS).median()}
    return copy_report(f, f_real, f_train) | {name: value.item() for name, value in row.items()}


def pixel_copies(fake: ImageSet, real: ImageSet, train: ImageSet) -> dict[str, float]:
    """Distances to the training images in pixels, and the share of copies."""
    small = [
        F.interpolate(x, (SMALL, SMALL), mode="area") if x.shape[-1] > SMALL else x
        for x in (to_tensor(images.pixels) for images in (fake, real, train))
    ]
    row = copy_report(*(x.flatten(1) for x in (*small[:2], turned(small[2]))))
    return {f"{name}_pixels": value for name, value in row.items()}


def by_class(f_real: Tensor, real: ImageSet, f: Tensor, fake: ImageSet) -> dict[str, dict]:
    """{class: its KID and counts of images}, for classes with two images at least in both sets; FID from ENOUGH on."""
    rows = {}
    for label, name in enumerate(real.classes if len(real.classes) > 1 else []):
        x, y = f_real[real.labels == label], f[fake.labels == label]
        if min(len(x), len(y)) > 1:
            own = {"fid": frechet(x, y)} if min(len(x), len(y)) >= ENOUGH else {}
            rows[name] = own | {"kid_x1000": 1000 * kid(x, y), "samples": len(y), "real": len(x)}
    return {"by_class": rows} if rows else {}


def class_accuracy(classifier: Network, images: ImageSet) -> dict:
    """The share of images that the classifier assigns to their own class, in all and by class; the inception score.

    {} if the classifier does not know all classes of the images. Its answer is the likeliest among these classes.
    """
    if not set(images.classes) <= set(classifier.classes):
        return {}
    columns = [classifier.classes.index(name) for name in images.classes]
    logits = classifier.logits(to_tensor(images.pixels))[:, columns]  # (N, classes)
    right = (logits.argmax(1) == images.labels).double()
    shares = {
        name: right[images.labels == i].mean().item()
        for i, name in enumerate(images.classes)
        if (images.labels == i).any()
    }
    return {
        "class_accuracy": right.mean().item(),
        "class_accuracy_by_class": shares,
        "inception_score": inception_score(logits)[0],
    }

"""Where rows of new classes start, and finding the old class under which a model denoises new images best."""

import pytest
import torch
from recipes.start import CLASSIFIER_STEPS, last_name, nearest_rows, similar_rows, start_rows

from data import load
from data.transforms import Transform, to_tensor
from metrics.networks import features
from sampling import Schedule
from weights.formats.published import SHIPPED

OLD = ["pill/good", "pill/crack", "pill/hole", "tile/good", "tile/crack"]
NEW = ["nut/crack", "nut/hole", "nut/mould"]
EVERY = [0, 1, 2, 3, 4]


def never(*asked):
    raise AssertionError("only `nearest` and `features` may ask for the costly comparisons")


@pytest.mark.parametrize(
    "start, rows",
    [
        ("name", [[1, 4], [2], EVERY]),  # no old class is mouldy: the mean of all
        ("mean", [EVERY] * 3),
        ("random", [[]] * 3),
        ("3", [[3]] * 3),
        ("tile/crack", [[4]] * 3),
    ],
)
def test_every_way_to_start(start, rows):
    assert start_rows(start, OLD, 5, NEW, never, never) == rows


def test_nearest_asks():
    assert start_rows("nearest", OLD, 5, NEW, lambda: [4, 0, 4], never) == [[4], [0], [4]]


@pytest.mark.parametrize("start, source", [("features", ""), ("features:a:b/c", "a:b/c")])
def test_features_asks_with_the_source_of_old_images(start, source):
    assert start_rows(start, OLD, 5, NEW, never, lambda given: [4, 0, len(given)]) == [[4], [0], [len(source)]]


def test_a_checkpoint_without_names_has_ids_only():
    assert start_rows("name", None, 5, NEW, never, never) == [EVERY] * 3
    assert start_rows("4", None, 5, NEW, never, never) == [[4]] * 3
    with pytest.raises(ValueError, match=r"an id in 0\.\.4$"):
        start_rows("pill/good", None, 5, NEW, never, never)


@pytest.mark.parametrize("start", ["5", "pill/crakc"])
def test_an_unknown_start_shows_what_there_is(start):
    with pytest.raises(ValueError, match=r"none of name, .*, random, an id in 0\.\.4 or a class .*; did you mean '"):
        start_rows(start, OLD, 5, NEW, never, never)


def test_the_last_name_is_what_stands_after_the_product():
    assert [last_name(name) for name in ("a/b/crack", "crack", "nut/")] == ["crack", "crack", ""]


def rows_know(known, schedule, seen=None, variance=False):
    """A model whose row k predicts the exact noise if the image is known[k], and so errs for all others."""

    def model(x, t, y):
        assert not torch.is_grad_enabled() and len(x) == len(t) == len(y)
        if seen is not None:
            seen.append(len(x))
        x0 = known[y]  # (B, C, H, W)
        alpha, sigma = schedule.alpha_sigma(t, x)
        out = schedule.target(x0, (x - alpha * x0) / sigma, t)
        return torch.cat([out, out * 0 + 7], 1) if variance else out

    return model


@pytest.mark.parametrize("prediction", ["eps", "v"])
@pytest.mark.parametrize("variance", [False, True])
def test_the_row_that_knows_the_images_is_found(prediction, variance):
    schedule = Schedule.linear(prediction=prediction)
    known = torch.randn(6, 2, 4, 4, generator=torch.Generator().manual_seed(0))
    rows, labels = torch.tensor([5, 0, 3]), torch.tensor([2, 0, 1, 0, 2])  # class i looks like row rows[i]
    model = rows_know(known, schedule, variance=variance)
    assert nearest_rows(model, known[rows[labels]], labels, 6, schedule) == rows.tolist()


def test_batches_change_nothing():
    schedule, seen = Schedule.linear(), []
    known = torch.randn(3, 2, 4, 4, generator=torch.Generator().manual_seed(0))
    x0 = known[torch.full((11,), 1)] + 0.1
    model = rows_know(known, schedule, seen)
    assert nearest_rows(model, x0, torch.zeros(11).long(), 3, schedule, batch=10) == [1]
    assert sum(seen) == 3 * 11 * CLASSIFIER_STEPS and max(seen) == 10


def test_what_it_is_given_is_left_as_it_was():
    schedule = Schedule.linear()
    x0, labels = torch.zeros(2, 2, 4, 4), torch.tensor([0, 1])
    nearest_rows(rows_know(torch.zeros(3, 2, 4, 4), schedule), x0, labels, 3, schedule)
    assert (x0 == 0).all() and labels.tolist() == [0, 1]


@pytest.fixture(scope="module")
def bottles():
    """Few images of every class, others of the same, and the shipped network."""
    few, others = (load(f"generated:bottle/{split}/3", Transform(64)) for split in ("few", "val"))
    return few, others, features.load_classifier(SHIPPED / "tiny-features" / "model.safetensors")


def test_the_head_of_the_network_stands_for_old_classes(bottles):
    images, _, (_, names) = bottles
    old = [name for name in names if name not in images.classes][:9] + images.classes[::-1]
    count = len(images.classes)
    assert similar_rows(images, None, old, len(old)) == list(range(8 + count, 8, -1))  # each is most like itself


def test_images_of_old_classes_stand_for_them(bottles):
    images, others, (network, _) = bottles
    count = len(images.classes)
    assert similar_rows(images, others, images.classes[::-1], count) == list(range(count))[::-1]
    assert similar_rows(images, others, None, count) == list(range(count))

    with torch.no_grad():  # the formula, class by class
        own, theirs = (network.features(to_tensor(of.pixels)) for of in (images, others))
    means = [
        [sum(f.clamp(min=0) / f.norm() for f, y in zip(all_f, of.labels) if y == label) for label in range(count)]
        for all_f, of in ((own, images), (theirs, others))
    ]
    closer = [
        int(torch.cosine_similarity(f, means[1][3], 0) < torch.cosine_similarity(f, means[1][1], 0)) for f in means[0]
    ]
    assert similar_rows(images, others, [images.classes[3], images.classes[1]], 2) == closer


@pytest.mark.parametrize(
    "old, rows, given, message",
    [
        (
            ["bottle/good", "street/fog"],
            2,
            False,
            "no features of 'street/fog', a class of the checkpoint; features:DATA",
        ),
        (["bottle/good", "pill/good"], 2, True, "no features of 'pill/good', a class of the checkpoint; features:DATA"),
        (
            None,
            1000,
            False,
            "names none of its 1000 classes; features:DATA takes images of 1000 classes, in their order",
        ),
        (
            None,
            1000,
            True,
            "names none of its 1000 classes; features:DATA takes images of 1000 classes, in their order",
        ),
    ],
)
def test_old_classes_that_nothing_is_known_of_are_one_sentence(bottles, old, rows, given, message):
    images, others, _ = bottles
    with pytest.raises(ValueError, match=f"start features: {'the checkpoint ' if old is None else ''}{message}"):
        similar_rows(images, others if given else None, old, rows)

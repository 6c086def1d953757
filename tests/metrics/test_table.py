"""The table: its numbers, with classes that the classifier knows and with others, and what it says of copies."""

from typing import NamedTuple

import numpy as np
import pytest
import torch

from data import ImageSet
from metrics import table
from metrics.statistics.frechet import frechet
from metrics.statistics.kid import kid
from metrics.table import by_class, measure
from metrics.text import as_text, doubts


class Colours(NamedTuple):
    """A network whose features and three logits are the mean of red, green and blue."""

    name: str = "colours"
    classes: tuple = ("red", "green", "blue")

    def embed(self, x):
        return x.mean((2, 3))

    logits = embed


def images(count, seed, classes=("crack",), labels=None):
    pixels = np.random.default_rng(seed).integers(0, 128, (count, 4, 4, 3), dtype=np.uint8)
    labels = torch.zeros(count).long() if labels is None else torch.tensor(labels)
    return ImageSet(pixels, labels, list(classes), [str(i) for i in range(count)])


def coloured(channels, classes, labels):
    found = images(len(channels), 5, classes, labels)
    for pixels, channel in zip(found.pixels, channels):
        pixels[..., channel] += 127
    return found


HELD_OUT, TRAIN = images(20, 1), images(20, 2)
CLASSIFIER = Colours()


def test_classes_that_the_classifier_knows_are_counted():
    """Samples of blue, blue, red, red that are blue, green, red, red. Green is not among the run's classes."""
    fake = coloured([2, 1, 0, 0], ["blue", "red"], [0, 0, 1, 1])
    numbers = measure(Colours(), fake, HELD_OUT, TRAIN, CLASSIFIER)
    shares = numbers["class_accuracy_by_class"]
    assert shares["red"] == 1.0 and shares["blue"] in (0.5, 1.0)  # green must be called blue or red
    assert numbers["class_accuracy"] == (shares["red"] + shares["blue"]) / 2
    assert 1 < numbers["inception_score"] <= 2


def test_classes_that_it_does_not_know_have_no_accuracy():
    numbers = measure(Colours(), coloured([2, 1], ["crack"], [0, 0]), HELD_OUT, TRAIN, CLASSIFIER)
    assert not {"class_accuracy", "class_accuracy_by_class", "inception_score"} & numbers.keys()


def test_every_number_says_of_how_many_and_of_what():
    numbers = measure(Colours(), images(8, 3), HELD_OUT, TRAIN)
    assert [numbers[key] for key in ("network", "samples", "real", "train")] == ["colours", 8, 20, 20]
    assert {
        "kid_x1000",
        "kid_deviation_x1000",
        "fid",
        "precision",
        "recall",
        "density",
        "coverage",
        "kid_real_x1000",
        "diversity",
        "clusters",
        "single",
        "empty",
        "copies",
        "authentic",
        "ratio",
        "nearest",
        "nearest_real",
        "copies_pixels",
        "nearest_pixels",
    } <= numbers.keys()
    assert numbers["clusters"] + numbers["single"] + numbers["empty"] == 20 and "left_out" not in numbers
    assert numbers["width"] == 3


def test_without_training_images_nothing_is_said_of_copies():
    numbers = measure(Colours(), images(8, 3), HELD_OUT)
    assert "kid_x1000" in numbers and not {"train", "copies", "diversity", "kid_real_x1000"} & numbers.keys()


def test_what_needs_more_images_is_left_out_with_the_reason():
    numbers = measure(Colours(), images(3, 3), HELD_OUT, TRAIN)
    assert "precision" not in numbers and "fid" in numbers
    assert numbers["left_out"] == {"precision": "precision needs 4 and 4 images at least, found 20 and 3"}
    assert "precision needs 4" in as_text(numbers)


def test_copies_of_the_training_images_show_as_such():
    turned = TRAIN._replace(pixels=np.rot90(TRAIN.pixels[:6], axes=(1, 2)), labels=TRAIN.labels[:6])
    numbers = measure(Colours(), turned, HELD_OUT, TRAIN)
    assert numbers["samples"] == 6 and numbers["copies"] == numbers["copies_pixels"] == 1.0
    assert numbers["authentic"] == 0 and numbers["nearest"] < 1e-5 < numbers["nearest_real"]


def test_identical_samples_have_no_diversity():
    one = images(1, 3)
    numbers = measure(
        Colours(), one._replace(pixels=one.pixels.repeat(8, 0), labels=torch.zeros(8).long()), HELD_OUT, TRAIN
    )
    assert numbers["diversity"] == 0 and numbers["clusters"] == 1


def test_the_distance_between_samples_and_held_out_images_stands_beside_that_of_real_ones():
    numbers = measure(Colours(), coloured([0] * 20, ["crack"], [0] * 20), HELD_OUT, TRAIN)
    assert numbers["kid_x1000"] > 10 * abs(numbers["kid_real_x1000"])


def test_distances_by_class_are_of_that_class_and_say_of_how_many():
    fake, real = images(9, 3, ("a", "b"), [0] * 4 + [1] * 5), images(20, 1, ("a", "b"), [0] * 8 + [1] * 12)
    found = measure(Colours(), fake, real)["by_class"]
    assert [(row["samples"], row["real"]) for row in found.values()] == [(4, 8), (5, 12)]

    def colours(pixels):
        return torch.from_numpy(pixels.copy()).permute(0, 3, 1, 2).float().mean((2, 3)) / 127.5 - 1

    assert found["b"]["kid_x1000"] == pytest.approx(
        1000 * kid(colours(real.pixels[8:]), colours(fake.pixels[4:])), abs=1e-3
    )


def features(count, seed=0):
    return torch.randn(count, 4, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def test_classes_are_measured_apart_with_their_counts(monkeypatch):
    monkeypatch.setattr(table, "ENOUGH", 2)
    x, y = features(12), features(9, 1)
    real, fake = images(12, 0, ("a", "b"), [1] * 5 + [0] * 7), images(9, 1, ("a", "b"), [0, 1, 1] * 3)
    rows = by_class(x, real, y, fake)["by_class"]
    assert {name: (row["fid"], row["real"], row["samples"]) for name, row in rows.items()} == {
        "a": (frechet(x[5:], y[::3]), 7, 3),
        "b": (frechet(x[:5], y[[1, 2, 4, 5, 7, 8]]), 5, 6),
    }


@pytest.mark.parametrize("labels", [[0, 0, 0, 1], [0, 0, 0, 0]])
def test_a_class_with_one_image_or_none_has_no_distances(labels):
    real, fake = images(4, 0, ("a", "b"), [0, 0, 1, 1]), images(4, 1, ("a", "b"), labels)
    assert by_class(features(4), real, features(4, 1), fake)["by_class"].keys() == {"a"}


def test_pixels_of_large_images_are_compared_small():
    large = [
        found._replace(pixels=found.pixels.repeat(32, 1).repeat(32, 2)) for found in (images(8, 3), HELD_OUT, TRAIN)
    ]
    far = measure(Colours(), *large)["nearest_real_pixels"]
    near = measure(Colours(), images(8, 3), HELD_OUT, TRAIN)["nearest_real_pixels"]
    assert far == pytest.approx(16 * near, rel=1e-5)  # 64 pixels a side instead of 4


def test_text_has_two_columns_and_classes_under_their_mean():
    numbers = {
        "network": "tiny-features",
        "samples": 8,
        "class_accuracy": 0.5,
        "class_accuracy_by_class": {"crack": 0.25},
        "by_class": {"crack": {"fid": 1.5, "samples": 4}},
    }
    lines = as_text(numbers).splitlines()
    assert [line.split() for line in lines] == [
        ["measured", "in", "tiny-features"],
        ["samples", "8"],
        "samples that show their class 0.500 by a classifier that knows the classes".split(),
        ["crack", "0.250"],
        ["by", "class"],
        ["crack", "fid", "1.500", "samples", "4"],
    ]
    assert lines[3].startswith("  ") and len(lines[1]) == len(lines[3]) == lines[2].index("0.500") + 5


def test_fid_by_class_of_fewer_than_fifty_images_is_left_out_with_the_reason():
    few, many = (images(2 * n, 3, ("a", "b"), [0, 1] * n) for n in (49, 50))
    real = images(120, 1, ("a", "b"), [0, 1] * 60)
    numbers = measure(Colours(), few, real)
    assert all("fid" not in row and "kid_x1000" in row for row in numbers["by_class"].values())
    assert "it takes 50 of each class" in numbers["left_out"]["fid by class"]
    assert all("fid" in row for row in measure(Colours(), many, real)["by_class"].values())


def test_what_so_few_images_cannot_tell_is_said_with_how_many_it_would_take():
    few = {"samples": 13, "real": 20, "width": 64, "kid_x1000": 4.0, "kid_deviation_x1000": 328.0, "fid": 1.0}
    kid_words, fid_words = doubts(few)
    assert "KID 4 +- 328 (x 1000) of 13 images tells no difference" in kid_words and "about 3,000 of each" in kid_words
    assert "FID of 13 images in 64 features ranks nothing: it takes 65 of each at least" == fid_words
    assert "only more could tell one" in doubts(few | {"kid_x1000": -1.0})[0]
    (share,) = doubts({"samples": 25, "real": 300, "copies": 0.2})
    assert "known to +-0.20 (two deviations); 100 would make it +-0.10" in share
    enough = {"samples": 500, "real": 500, "width": 64, "kid_x1000": 40.0, "kid_deviation_x1000": 3.0, "fid": 1.0}
    assert doubts(enough | {"copies": 0.2}) == []

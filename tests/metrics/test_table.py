"""The table of a run: what it holds, with classes that the judge knows and with others."""
import pytest
import torch
from torch import nn

from metrics.table import as_text, measure


class Judge(nn.Module):
    """A network whose features are the mean colour, and whose three logits are red, green and blue."""

    config = {"side": 4}

    def __init__(self):
        super().__init__()
        self.head = nn.Identity()

    def features(self, x):
        return x.mean((2, 3)) + 1   # (B, 3), above 0


def pictures(count, seed):
    return torch.rand(count, 3, 4, 4, generator=torch.Generator().manual_seed(seed)) - 1


def coloured(*channels):
    x = pictures(len(channels), 5)
    x[range(len(channels)), list(channels)] += 1
    return x


@pytest.fixture
def real():
    return {"held_out": pictures(20, 1), "train": pictures(20, 2)}


def test_classes_that_the_judge_knows_are_counted(real):
    """Asked for blue, blue, red, red; drawn blue, green, red, red. Green is not among the run's classes."""
    numbers = measure(Judge(), ["red", "green", "blue"], coloured(2, 1, 0, 0), torch.tensor([0, 0, 1, 1]),
                      classes=["blue", "red"], **real)
    by_class = numbers["asked_state_by_class"]
    assert by_class["red"] == 1.0 and by_class["blue"] in (0.5, 1.0)   # green must be called blue or red
    assert numbers["asked_state"] == (by_class["red"] + by_class["blue"]) / 2


def test_classes_that_it_does_not_know_are_not_told(real):
    names = ["red", "green", "blue"]
    numbers = measure(Judge(), names, coloured(2, 1), torch.tensor([0, 0]), classes=["crack"], **real)
    assert numbers.keys() == {"samples", "kid_x1000", "kid_real_x1000", "nearest", "nearest_real", "copies",
                              "nearest_pixels", "nearest_real_pixels", "copies_pixels"}


def test_copies_of_the_training_images_show_as_such(real):
    numbers = measure(Judge(), [], real["train"][:6].rot90(1, (2, 3)), torch.zeros(6).long(), classes=["crack"], **real)
    assert numbers["samples"] == 6 and numbers["copies"] == numbers["copies_pixels"] == 1.0
    assert numbers["nearest"] < 1e-5 < numbers["nearest_real"]


def test_the_distance_between_samples_and_held_out_images_stands_beside_that_of_real_ones(real):
    numbers = measure(Judge(), [], coloured(*[0] * 20), torch.zeros(20).long(), classes=["crack"], **real)
    assert numbers["kid_x1000"] > 10 * abs(numbers["kid_real_x1000"])


def test_text_has_two_columns_and_classes_under_their_mean():
    numbers = {"network": "tiny-features", "samples": 8, "asked_state": 0.5, "asked_state_by_class": {"crack": 0.25}}
    lines = as_text(numbers).splitlines()
    assert [line.split() for line in lines] == [
        ["network", "tiny-features"], ["samples", "8"], ["asked_state", "0.500"], ["crack", "0.250"]]
    assert lines[3].startswith("  ") and len(lines[1]) == len(lines[2]) == len(lines[3])

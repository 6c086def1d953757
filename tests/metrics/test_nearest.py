"""Distances to the training images: planted copies are found, however turned; fresh images are no copies."""
import pytest
import torch

from metrics.nearest import copy_report, nearest, turned


def pictures(count, seed, side=4):
    return torch.rand(count, 3, side, side, generator=torch.Generator().manual_seed(seed)) * 2 - 1


def report(fake, held_out, train):
    return copy_report(fake.flatten(1), held_out.flatten(1), turned(train).flatten(1))


def test_distances_are_to_the_nearest_row():
    train = torch.tensor([[0.0, 0.0], [10.0, 0.0]])
    assert nearest(torch.tensor([[3.0, 4.0], [10.0, 2.0], [0.0, 0.0]]), train).tolist() == [5, 2, 0]


def test_a_picture_has_eight_turns_and_mirrors():
    views = turned(torch.arange(9.0).reshape(1, 1, 3, 3))
    assert views.shape == (8, 1, 3, 3) and len(views.flatten(1).unique(dim=0)) == 8
    assert turned(pictures(5, 0)).shape == (40, 3, 4, 4)


@pytest.mark.parametrize("turn", [
    lambda x: x, lambda x: x.flip(-1), lambda x: x.flip(-2), lambda x: x.rot90(1, (-2, -1)),
    lambda x: x.rot90(3, (-2, -1)), lambda x: x.transpose(-2, -1)],
    ids=["as it is", "left-right", "up-down", "90", "270", "transposed"])
def test_planted_copies_are_all_found(turn):
    train = pictures(20, 0)
    numbers = report(turn(train[::2]), pictures(100, 1), train)
    assert numbers["copies"] == 1.0 and numbers["nearest"] < 1e-6 < numbers["nearest_real"]


def test_a_mixture_of_copies_and_fresh_images_shows_its_share():
    train, fresh = pictures(20, 0), pictures(30, 2)
    numbers = report(torch.cat([train[:10], fresh]), pictures(200, 1), train)
    assert 0.25 <= numbers["copies"] <= 0.4


def test_fresh_images_count_as_copies_five_times_in_a_hundred():
    drawn = [report(pictures(500, 3 * i + 2), pictures(500, 3 * i + 1), pictures(10, 3 * i)) for i in range(10)]
    mean = {key: sum(numbers[key] for numbers in drawn) / len(drawn) for key in drawn[0]}
    assert mean["copies"] == pytest.approx(0.05, abs=0.015)
    assert mean["nearest"] == pytest.approx(mean["nearest_real"], rel=0.02)

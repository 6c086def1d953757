"""Distances to the training images: planted copies are found, however turned; fresh images are no copies."""

import pytest
import torch

from metrics.statistics.nearest import authentic, copy_report, nearest, ratio, turned


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


@pytest.mark.parametrize(
    "turn",
    [
        lambda x: x,
        lambda x: x.flip(-1),
        lambda x: x.flip(-2),
        lambda x: x.rot90(1, (-2, -1)),
        lambda x: x.rot90(3, (-2, -1)),
        lambda x: x.transpose(-2, -1),
    ],
    ids=["as it is", "left-right", "up-down", "90", "270", "transposed"],
)
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


def test_the_share_of_real_images_that_samples_must_be_nearer_than():
    train, held_out, fake = pictures(10, 0).flatten(1), pictures(100, 1).flatten(1), pictures(100, 2).flatten(1)
    ours, real = nearest(fake, train), nearest(held_out, train).sort().values
    for share, bound in ((0.0, real[0]), (0.01, 0.01 * real[0] + 0.99 * real[1]), (0.5, real[49:51].mean())):
        assert copy_report(fake, held_out, train, share)["copies"] == (ours < bound).double().mean()
    assert copy_report(fake, held_out, train) == copy_report(fake, held_out, train, 0.05)


def test_authentic_is_further_from_an_image_than_its_own_neighbour():
    """Training images at 0, 3 and 10; the neighbours of these lie at 3, 3 and 7."""
    train, fake = (torch.tensor(x).double()[:, None] for x in ([0, 3, 10], [0, -2.9, -3, -3.1, 6.4, 16.9, 17.1]))
    assert authentic(fake, train).tolist() == [0, 0, 0, 1, 1, 0, 1]


def test_planted_copies_are_not_authentic_and_have_a_ratio_of_0():
    train = pictures(20, 0).flatten(1)
    fake = torch.cat([train[:6], 10 + pictures(14, 1).flatten(1)])
    assert authentic(fake, train).tolist() == [0] * 6 + [1] * 14
    assert ratio(fake, train).lt(1e-9).tolist() == [True] * 6 + [False] * 14


def test_the_ratio_is_to_the_mean_of_the_nearest():
    """Distances of 2 to 0, 3, 10 and 50 are 2, 1, 8 and 48."""
    train, fake = torch.tensor([0.0, 3, 10, 50])[:, None], torch.tensor([[2.0]])
    assert ratio(fake, train, k=3).tolist() == pytest.approx([3 / 11])
    assert ratio(fake, train, k=1).tolist() == [1]
    assert ratio(fake, torch.tensor([[2.0], [2.0]]), k=2).tolist() == [0]


@pytest.mark.parametrize("turn", [lambda x: x, lambda x: x.flip(-1), lambda x: x.rot90(3, (-2, -1))])
def test_turned_copies_are_found_among_the_views(turn):
    """An image is not its own neighbour however it is turned: the even ones here look alike from all sides."""
    train = pictures(8, 0)
    train[::2] = 0.1 * train[::2].mean((2, 3), keepdim=True) + 0.9
    views, copies = turned(train).flatten(1), turn(train).flatten(1)
    assert authentic(copies, views, views=8).tolist() == [0] * 8
    assert ratio(copies, views, views=8).lt(1e-9).all()
    fresh = pictures(8, 1).flatten(1) - 9
    assert authentic(fresh, views, views=8).tolist() == [1] * 8 and ratio(fresh, views, views=8).gt(0.8).all()


def test_views_do_not_matter_where_images_have_one():
    fake, train = pictures(9, 0).flatten(1), pictures(7, 1).flatten(1)
    assert torch.equal(ratio(fake, train), ratio(fake, train.repeat(3, 1), views=3))
    assert torch.equal(authentic(fake, train), authentic(fake, train.repeat(3, 1), views=3))


@pytest.mark.parametrize(
    "call, message",
    [
        (lambda x: authentic(x, x[:1]), "authenticity needs 1 and 2 images at least, found 9 and 1"),
        (lambda x: ratio(x, x[:4]), "the ratio needs 1 and 5 images at least, found 9 and 4"),
        (lambda x: ratio(x, x, k=1, views=2), "expected 2 views of each training image, found 9 in all"),
    ],
)
def test_too_few_training_images(call, message):
    with pytest.raises(ValueError, match=message):
        call(pictures(9, 0).flatten(1))

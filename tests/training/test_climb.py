"""A loss that climbs is said once; one that scatters is not."""

import torch

from training.climb import STEPS, Climb


def warnings(losses):
    climb = Climb()
    return [text for text in map(climb.add, losses) if text]


def test_a_loss_that_climbs_is_said_once_with_numbers_and_advice():
    (text,) = warnings([1.0] * 30 + [1.2**i for i in range(60)])
    assert "the loss climbs" in text and "was 1 at step " in text and "lower --lr" in text


def test_a_loss_that_falls_or_scatters_is_not():
    assert not warnings([1 / (1 + i) for i in range(500)])
    noise = torch.Generator().manual_seed(0)
    for batch in (2, 8):
        t = torch.rand(3000, batch, generator=noise)
        assert not warnings((0.02 + 0.9 * (1 - t) ** 3).mean(1).tolist())  # the error by timestep, of clean to noise


def test_a_short_run_says_nothing():
    assert not warnings([10.0**i for i in range(STEPS - 1)])


def test_the_losses_before_a_resumption_count():
    assert "climbs" in "".join(map(Climb([0.1] * 30).add, [5.0] * 30))
    assert not "".join(map(Climb([0.1] * 30 + [5.0] * 30).add, [5.0] * 30))  # said before

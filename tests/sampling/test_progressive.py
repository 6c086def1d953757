"""The progressive noise schedule: published numbers, and which stage a share of the training is."""

import pytest
import torch

from sampling import Schedule, dit_schedule
from sampling.progressive import stage


@pytest.mark.parametrize(
    "k, last, middle, lowered",
    [  # abar_999, abar_499, steps whose beta is below the linear one
        (0, 4.0358e-05, 0.07859, 0),
        (1, 6.297e-05, 0.12045, 547),
        (2, 1.1034e-04, 0.17139, 660),
        (3, 2.5072e-04, 0.24388, 749),
        (4, 7.7592e-04, 0.34704, 824),
        (5, 3.5618e-03, 0.49384, 890),
    ],
)
def test_the_stages_have_the_published_betas(k, last, middle, lowered):
    schedule = stage(k)
    assert schedule.alpha_bar[999].item() == pytest.approx(last, rel=1e-4)
    assert schedule.alpha_bar[499].item() == pytest.approx(middle, rel=1e-4)
    linear = torch.linspace(1e-4, 0.02, 1000, dtype=torch.float64)
    assert (schedule.full.beta < linear - 1e-12).sum().item() == lowered
    assert (schedule.full.beta < linear + 1e-12).all()


@pytest.mark.parametrize("steps", [1, 5, 6, 7, 100, 900])
def test_a_training_goes_through_equal_stages_whatever_its_length(steps):
    for step in range(steps):
        assert dit_schedule("progressive", step / steps) is stage(6 * step // steps)


def test_what_is_drawn_with_is_the_last_stage_or_the_linear_betas():
    assert dit_schedule("progressive") is dit_schedule("progressive", 1.0) is stage(5)
    assert dit_schedule() is dit_schedule("fixed", 0.9) is stage(0)
    assert torch.equal(dit_schedule().alpha_bar, Schedule.linear().alpha_bar)


def test_an_unknown_schedule_is_one_sentence():
    with pytest.raises(ValueError, match="noise_schedule must be fixed or progressive, found 'cosine'"):
        dit_schedule("cosine")

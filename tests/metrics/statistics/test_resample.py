"""Resamples of a statistic: whole sets with replacement, subsets without, and the error that the first one tells."""

import pytest
import torch

from metrics.statistics.kid import resample


def draws(seed=0):
    return torch.Generator().manual_seed(seed)


def test_the_deviation_of_a_mean_is_its_standard_error():
    x = torch.randn(200, generator=draws(), dtype=torch.float64)
    values = resample(lambda i: x[i].mean(), (200,), draws(1), times=400)
    assert values.shape == (400,) and values.dtype == torch.float64
    assert values.std() == pytest.approx(x.std().item() / 200**0.5, rel=0.15)


def test_indices_are_those_of_each_set():
    seen = []
    resample(lambda i, j: seen.append((i, j)) or 0.0, (4, 9), draws(), times=50)
    for place, count in enumerate((4, 9)):
        drawn = torch.stack([pair[place] for pair in seen])
        assert drawn.shape == (50, count) and drawn.unique().tolist() == list(range(count))
        assert all(1 < len(row.unique()) for row in drawn) and any(len(row.unique()) < count for row in drawn)


@pytest.mark.parametrize("size, drawn", [(3, 3), (50, 4)])
def test_subsets_hold_no_image_twice(size, drawn):
    seen = []
    resample(lambda i, j: seen.append((i, j)) or 0.0, (4, 9), draws(), times=5, size=size)
    assert all(len(i) == len(i.unique()) == drawn == len(j.unique()) for i, j in seen)


def test_a_set_of_one_image_is_drawn_as_it_is():
    assert resample(lambda i: i.sum(), (1,), draws(), times=3).tolist() == [0, 0, 0]

"""Kernel inception distance against its definition, what an unbiased estimate does, and how far it moves."""

import pytest
import torch
from torch import nn

from metrics.statistics.kid import kid, kid_interval, resample


def normal(count, dim=6, shift=0.0, seed=0):
    return torch.randn(count, dim, generator=torch.Generator().manual_seed(seed)) + shift


def by_loops(x, y):
    def k(a, b):
        return (float(a @ b) / len(a) + 1) ** 3

    def within(rows):
        return (
            sum(k(a, b) for i, a in enumerate(rows) for j, b in enumerate(rows) if i != j) / len(rows) / (len(rows) - 1)
        )

    return within(x) + within(y) - 2 * sum(k(a, b) for a in x for b in y) / len(x) / len(y)


def test_it_is_the_sum_over_all_pairs():
    x, y = normal(7).double(), normal(5, shift=0.5, seed=1).double()
    assert kid(x, y) == pytest.approx(by_loops(x, y), rel=1e-10)


def test_it_is_symmetric_and_takes_the_least_of_images():
    x, y = normal(2), normal(9, seed=1)
    assert kid(x, y) == pytest.approx(kid(y, x)) == pytest.approx(by_loops(x.double(), y.double()))


def test_a_shift_raises_it():
    x = normal(400)
    values = [kid(x, normal(400, shift=shift, seed=1)) for shift in (0.0, 0.25, 0.5, 1.0)]
    assert values == sorted(values) and abs(values[0]) < 0.05 < values[1]


def test_it_is_unbiased_at_few_images_and_so_sometimes_negative():
    values = torch.tensor([kid(normal(8, seed=2 * i), normal(8, seed=2 * i + 1)) for i in range(400)])
    assert (values < 0).any() and (values > 0).any()
    assert values.mean().abs() < 3 * values.std() / len(values) ** 0.5  # three standard errors


@pytest.mark.parametrize("n, m", [(1, 5), (5, 0)])
def test_one_image_has_no_pair(n, m):
    with pytest.raises(ValueError, match=f"KID needs 2 and 2 images at least, found {n} and {m}"):
        kid(normal(n), normal(m))


def draws(seed=0):
    return torch.Generator().manual_seed(seed)


@pytest.mark.filterwarnings("ignore:Metric")
def test_subsets_are_those_of_torchmetrics():
    module = pytest.importorskip("torchmetrics.image.kid")
    network = nn.Sequential(nn.Flatten(), nn.Linear(12, 5)).double()
    real, fake = (normal(n, 12, shift, n).double().reshape(n, 3, 2, 2) for n, shift in ((30, 0.0), (20, 0.3)))
    metric = module.KernelInceptionDistance(network, subsets=7, subset_size=8).set_dtype(torch.float64)
    with torch.no_grad(), torch.random.fork_rng(devices=[]):
        metric.update(real, real=True)
        metric.update(fake, real=False)
        torch.manual_seed(3)
        expected = [value.item() for value in metric.compute()]
        ours = kid_interval(network(real), network(fake), draws(3), size=8, times=7)
    assert ours == pytest.approx(expected, rel=1e-9)


def test_a_subset_is_no_larger_than_the_smaller_set():
    x, y = normal(6), normal(9, seed=1, shift=1.0)
    mean, deviation = kid_interval(x, y, draws(), size=1000, times=20)
    assert (mean, deviation) == kid_interval(x, y, draws(), size=6, times=20) and deviation > 0
    assert kid_interval(x, y[:6], draws(), size=1000, times=5) == pytest.approx((kid(x, y[:6]), 0), abs=1e-12)


def test_a_resample_does_not_pair_an_image_with_itself():
    """Then the mean over resamples is that over all pairs; with copies taken for pairs it lies far above."""
    x, y = normal(8), normal(8, seed=1)
    mean, deviation = kid_interval(x, y, draws(), times=150)
    error = deviation / 150**0.5
    assert abs(mean - kid(x, y)) < 3 * error
    assert resample(lambda i, j: kid(x[i], y[j]), (8, 8), draws(), 150).mean() > kid(x, y) + 10 * error


def test_the_deviation_is_that_of_fresh_images():
    drawn = [(normal(30, seed=2 * i), normal(30, shift=1.0, seed=2 * i + 1)) for i in range(60)]
    true = torch.tensor([kid(x, y) for x, y in drawn]).std().item()
    told = [kid_interval(x, y, draws(), times=40)[1] for x, y in drawn[:10]]
    assert sum(told) / 10 == pytest.approx(true, rel=0.35)


def test_the_least_sets_have_an_interval_and_the_generator_decides_it():
    """Of three images, one draw in nine shows only one of them."""
    x, y = normal(3), normal(3, seed=1)
    same, again, other = (kid_interval(x, y, draws(seed), times=20) for seed in (1, 1, 2))
    assert same == again != other and same[1] > 0
    with pytest.raises(ValueError, match="the deviation of KID needs 3 and 3 images at least, found 3 and 2"):
        kid_interval(x, y[:2], draws())


def test_a_subset_of_one_has_no_pair():
    with pytest.raises(ValueError, match="KID needs subsets of 2 images at least, found size 1"):
        kid_interval(normal(5), normal(5), draws(), size=1)

"""Inception score: its two bounds, its definition in loops, torchmetrics, and parts."""

import math

import pytest
import torch
from torch import nn

from metrics.statistics.inception_score import inception_score


def logits(n, k=5, seed=0):
    return 2 * torch.randn(n, k, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def by_loops(rows):
    """exp of the mean over images of sum_y p(y|x) log(p(y|x) / p(y))."""
    p = rows.softmax(1).tolist()
    mean = [sum(column) / len(p) for column in zip(*p)]
    return math.exp(sum(a * math.log(a / b) for row in p for a, b in zip(row, mean)) / len(p))


def test_it_is_the_mean_divergence():
    assert inception_score(logits(7)) == pytest.approx((by_loops(logits(7)), 0), rel=1e-12)


@pytest.mark.parametrize("rows", [torch.zeros(6, 4), torch.tensor([[1e4, 0, 0]] * 6)], ids=["unclear", "one class"])
def test_samples_that_do_not_differ_in_class_have_1(rows):
    assert inception_score(rows) == pytest.approx((1, 0))


def test_clear_samples_of_all_classes_have_their_number():
    assert inception_score(1e4 * torch.eye(4).repeat(3, 1)) == pytest.approx((4, 0))


@pytest.mark.filterwarnings("ignore:Metric")
def test_parts_are_those_of_torchmetrics():
    """Which divides the variance of the parts by one less than their number."""
    module = pytest.importorskip("torchmetrics.image.inception")
    rows = logits(20)
    metric = module.InceptionScore(nn.Identity(), splits=4)
    metric.update(rows)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(3)
        mean, deviation = (value.item() for value in metric.compute())
    ours = inception_score(rows, splits=4, generator=torch.Generator().manual_seed(3))
    assert ours == pytest.approx((mean, deviation * (3 / 4) ** 0.5), rel=1e-9)


def test_parts_of_a_number_that_does_not_divide():
    """Seven samples in two parts are three and four."""
    rows, generator = logits(7), torch.Generator().manual_seed(1)
    shuffled = rows[torch.randperm(7, generator=torch.Generator().manual_seed(1))]
    a, b = by_loops(shuffled[:3]), by_loops(shuffled[3:])
    assert inception_score(rows, 2, generator) == pytest.approx(((a + b) / 2, abs(a - b) / 2), rel=1e-9)


@pytest.mark.parametrize(
    "rows, splits, message",
    [
        (logits(3), 4, "the inception score of 4 parts needs as many samples, found 3"),
        (logits(3), 0, "of 0 parts needs"),
        (logits(0), 1, "needs as many samples, found 0"),
        (logits(3), 2, "of 2 parts needs a generator that shuffles the samples"),
        (logits(3)[0], 1, r"needs logits \(N, K\), found \(5,\)"),
        (logits(3) / 0, 1, "needs finite logits, found NaN or infinity"),
    ],
)
def test_what_has_no_score(rows, splits, message):
    with pytest.raises(ValueError, match=message):
        inception_score(rows, splits)

"""Precision, recall, density and coverage: by hand on a line, by loops, by prdc, and with copies and collapse."""

import pytest
import torch

from metrics.statistics.neighbours import density_coverage, precision_recall


def normal(count, dim=4, seed=0):
    return torch.randn(count, dim, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def line(*places):
    return torch.tensor(places).double()[:, None]


def by_loops(real, fake, k, rim):
    """Share of fake in a ball of real, balls that a fake lies in over k, share of real with a fake in their ball."""
    inside = [[0] * len(fake) for _ in real]
    for i, x in enumerate(real):
        radius = sorted((x - other).norm().item() for j, other in enumerate(real) if j != i)[k - 1]
        for j, y in enumerate(fake):
            distance = (x - y).norm().item()
            inside[i][j] = distance < radius or (rim and distance == radius)
    columns = list(zip(*inside))
    return (
        sum(map(any, columns)) / len(fake),
        sum(map(sum, columns)) / k / len(fake),
        sum(map(any, inside)) / len(real),
    )


def test_on_a_line():
    """Two samples have a real image within reach, -1 at the rim of the ball; one real image a sample, 0 at the rim.

    Balls of the real: [-1, 1], [0, 2], [1, 7]. Of the samples: [-2, 0], [-3, -1], [5, 8], [6.5, 9.5].
    """
    real, fake = line(0, 1, 4), line(-1, -2, 6.5, 8)
    assert precision_recall(real, fake, k=1) == pytest.approx((2 / 4, 1 / 3))
    assert density_coverage(real, fake, k=1) == pytest.approx((1 / 4, 1 / 3))  # the rim does not count


@pytest.mark.parametrize("k", [1, 3, 5])
def test_it_is_what_the_loops_count(k):
    real, fake = normal(12), normal(9, seed=1) + 0.5
    precision, recall = precision_recall(real, fake, k)
    assert precision == pytest.approx(by_loops(real, fake, k, rim=True)[0])
    assert recall == pytest.approx(by_loops(fake, real, k, rim=True)[0])
    assert density_coverage(real, fake, k) == pytest.approx(by_loops(real, fake, k, rim=False)[1:])


@pytest.mark.parametrize("k", [1, 4])
def test_it_is_that_of_prdc(k):
    module = pytest.importorskip("prdc")
    real, fake = normal(30), 0.8 * normal(20, seed=1) + 0.3
    expected = module.compute_prdc(real.numpy(), fake.numpy(), nearest_k=k)
    ours = (*precision_recall(real, fake, k), *density_coverage(real, fake, k))
    assert ours == pytest.approx([expected[name] for name in ("precision", "recall", "density", "coverage")])


def test_samples_of_one_spot_are_precise_and_recall_nothing():
    real, fake = normal(40), normal(1, seed=1) * 0.1 + 1e-3 * normal(40, seed=2)
    precision, recall = precision_recall(real, fake)
    assert precision == 1 and recall == 0
    precision, recall = precision_recall(fake, real)  # and samples all over, of real images of one spot
    assert precision == 0 and recall == 1
    density, coverage = density_coverage(real, fake)
    assert density > 1 > 0.5 > coverage


def test_copies_of_all_real_images_have_all_and_of_one_little():
    real = normal(20)
    assert precision_recall(real, real.flip(0)) == (1, 1) and density_coverage(real, real.flip(0))[1] == 1
    assert precision_recall(real, real[:1].repeat(9, 1)) == (1, 1 / 20)


def test_equal_distributions_have_a_density_and_coverage_near_1():
    density, coverage = density_coverage(normal(400), normal(400, seed=1))
    assert density == pytest.approx(1, abs=0.1) and coverage > 0.93


def test_the_further_the_samples_the_less_of_everything():
    drawn = [normal(60, seed=1) + shift for shift in (0, 1, 2, 6)]
    for numbers in zip(*((*precision_recall(normal(60), x), *density_coverage(normal(60), x)) for x in drawn)):
        assert list(numbers) == sorted(numbers, reverse=True) and numbers[-1] == 0


@pytest.mark.parametrize(
    "call, message",
    [
        (lambda: precision_recall(normal(3), normal(9)), "precision needs 4 and 4 images at least, found 3 and 9"),
        (lambda: precision_recall(normal(9), normal(3)), "found 9 and 3"),
        (lambda: density_coverage(normal(5), normal(9)), "density needs 6 and 1 images at least, found 5 and 9"),
        (lambda: density_coverage(normal(5), normal(9), k=0), "k at least 1, found 0"),
    ],
)
def test_too_few_images(call, message):
    with pytest.raises(ValueError, match=message):
        call()


def test_one_sample_has_a_density_and_coverage():
    real = normal(6)
    assert density_coverage(real, real[:1]) == pytest.approx(by_loops(real, real[:1], 5, rim=False)[1:])

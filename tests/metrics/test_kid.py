"""Kernel inception distance against its definition, and what an unbiased estimate does."""
import pytest
import torch

from metrics.kid import kid


def normal(count, dim=6, shift=0.0, seed=0):
    return torch.randn(count, dim, generator=torch.Generator().manual_seed(seed)) + shift


def by_loops(x, y):
    def k(a, b):
        return (float(a @ b) / len(a) + 1) ** 3

    def within(rows):
        return sum(k(a, b) for i, a in enumerate(rows) for j, b in enumerate(rows) if i != j) / len(rows) / (
            len(rows) - 1)

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
    assert values.mean().abs() < 3 * values.std() / len(values) ** 0.5   # three standard errors


@pytest.mark.parametrize("n, m", [(1, 5), (5, 0)])
def test_one_image_has_no_pair(n, m):
    with pytest.raises(ValueError, match=f"two images of each kind at least, found {n} and {m}"):
        kid(normal(n), normal(m))

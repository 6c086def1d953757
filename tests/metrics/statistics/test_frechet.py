"""Frechet distance: Gaussians with exact moments, torchmetrics, sets with fewer images than dimensions."""

import pytest
import torch
from torch import nn

from metrics.statistics.frechet import frechet


def normal(count, dim, seed=0, dtype=torch.float64):
    return torch.randn(count, dim, generator=torch.Generator().manual_seed(seed), dtype=dtype)


def exactly(mean, covariance, count=50, seed=0):
    """Rows whose mean and covariance (N - 1) are the given ones, to rounding."""
    x = normal(count, len(mean), seed)
    x = x - x.mean(0)
    whitened = torch.linalg.solve_triangular(torch.linalg.cholesky(x.T.cov()), x.T, upper=False)
    return mean + (torch.linalg.cholesky(covariance) @ whitened).T


def by_eigenvalues(x, y):
    """|m1 - m2|^2 + tr S1 + tr S2 - 2 sum of roots of the eigenvalues of S1 S2."""
    a, b = x.T.cov(), y.T.cov()
    roots = torch.linalg.eigvals(a @ b).sqrt().real.sum()
    return ((x.mean(0) - y.mean(0)).square().sum() + a.trace() + b.trace() - 2 * roots).item()


def test_covariances_along_the_same_axes():
    """There FID = |m1 - m2|^2 + sum (s1 - s2)^2."""
    s1, s2, m = torch.tensor([3.0, 1, 0.5]).double(), torch.tensor([1.0, 2, 0.5]).double(), torch.zeros(3).double()
    x, y = exactly(m, s1.square().diag()), exactly(m + 2, s2.square().diag(), count=30, seed=1)
    assert frechet(x, y) == pytest.approx(12 + 4 + 1, rel=1e-10)


def test_covariances_that_do_not_commute():
    """For 2 x 2, tr (S1 S2)^1/2 = sqrt(tr(S1 S2) + 2 sqrt(det(S1 S2)))."""
    a, b = torch.tensor([[4.0, 1], [1, 2]]).double(), torch.tensor([[1.0, -0.5], [-0.5, 3]]).double()
    m = torch.tensor([1.0, -1]).double()
    root = ((a @ b).trace() + 2 * (a @ b).det().sqrt()).sqrt()
    assert not torch.allclose(a @ b, b @ a)
    expected = (a.trace() + b.trace() - 2 * root).item() + 2
    assert frechet(exactly(m, a), exactly(0 * m, b, seed=1)) == pytest.approx(expected, rel=1e-10)


@pytest.mark.parametrize("n, m", [(60, 40), (60, 5), (5, 60), (6, 4)], ids=str)
def test_every_shape_of_the_product_is_the_same_number(n, m):
    """More or fewer images than the 16 dimensions, in one set or in both; a rotation of the space changes nothing."""
    x, y = normal(n, 16), normal(m, 16, 1) * 1.5 + 0.5
    turn = torch.linalg.qr(normal(16, 16, 2)).Q
    assert frechet(x, y) == pytest.approx(by_eigenvalues(x, y), rel=1e-5)  # the root of its noise is 1e-8
    assert frechet(x @ turn, y @ turn) == pytest.approx(frechet(x, y), rel=1e-10) == frechet(y, x)


@pytest.mark.parametrize("count", [3, 40])
def test_a_set_and_its_shift(count):
    """Also at 3 images in 16 dimensions, where the covariance is singular."""
    for seed in range(15):  # the rounding of some is below 0
        x = normal(count, 16, seed)
        assert 0 <= frechet(x, x.flip(0)) < 1e-12
    distances = [frechet(x, x + shift) for shift in (0.1, 0.2, 0.4)]
    assert distances == pytest.approx([16 * shift**2 for shift in (0.1, 0.2, 0.4)], rel=1e-9)


def test_it_is_that_of_torchmetrics():
    fid = pytest.importorskip("torchmetrics.image.fid")
    network = nn.Sequential(nn.Flatten(), nn.Linear(12, 6)).double()
    network.num_features = 6
    real, fake = normal(40, 12).reshape(-1, 3, 2, 2), normal(30, 12, 1).reshape(-1, 3, 2, 2) * 0.7 + 0.2
    metric = fid.FrechetInceptionDistance(network).set_dtype(torch.float64)
    with torch.no_grad():
        metric.update(real, real=True)
        metric.update(fake, real=False)
        ours = frechet(network(fake), network(real))
    assert ours == pytest.approx(metric.compute().item(), rel=1e-6)


def test_few_images_reward_samples_that_vary_too_little():
    """The caution of the module: 0.6 of the real spread beats the real distribution at 20 images, not at 1,000."""

    def mean(count, spread):
        return sum(frechet(normal(count, 64, i), spread * normal(count, 64, 99 - i)) for i in range(3)) / 3

    assert mean(20, 0.6) < mean(20, 1.0)
    assert mean(1000, 0.6) > mean(1000, 1.0)


@pytest.mark.parametrize(
    "x, y, message",
    [
        (normal(1, 3), normal(5, 3), "FID needs 2 and 2 images at least, found 1 and 5"),
        (normal(5, 3), normal(1, 3), "found 5 and 1"),
        (normal(5, 3), normal(5, 4), r"features \(N, D\) and \(M, D\), found \(5, 3\) and \(5, 4\)"),
        (normal(5, 3), normal(3, 1)[:, 0], r"found \(5, 3\) and \(3,\)"),
        (normal(5, 3), normal(5, 3) / 0, "FID needs finite features, found NaN or infinity"),
    ],
)
def test_features_that_are_no_two_sets(x, y, message):
    with pytest.raises(ValueError, match=message):
        frechet(x, y)


def test_features_of_any_precision_are_measured_in_float64_and_left_as_they_were():
    x, y = normal(6, 4).bfloat16(), normal(6, 4, 1).bfloat16().requires_grad_()
    kept = x.clone()
    assert frechet(x, y) == frechet(x.double(), y.double())
    assert torch.equal(x, kept)

"""Intra-cluster distance: copies, clusters that are empty or of one sample, zeros, and the definition in loops."""

import math

import pytest
import torch

from metrics.statistics.clusters import intra_cluster, pairwise_diversity


def normal(count, dim=3, seed=0):
    return torch.randn(count, dim, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def measured(fake, train):
    return intra_cluster(torch.cdist(fake, train), torch.cdist(fake, fake))


def by_loops(fake, train):
    clusters = {}
    for x in fake:
        distances = [(x - c).norm().item() for c in train]
        clusters.setdefault(distances.index(min(distances)), []).append(x)
    means = []
    for members in clusters.values():
        pairs = [(a - b).norm().item() for i, a in enumerate(members) for b in members[i + 1 :]]
        means += [sum(pairs) / len(pairs)] if pairs else []
    return sum(means) / len(means)


def test_on_a_line():
    """Clusters of 0: {0, 1, 3}, pairs 1, 3, 2; of 10: {9, 13}, pair 4; of 20: one sample; of 90: none."""
    fake, train = (torch.tensor(x).double()[:, None] for x in ([13, 0, 1, 20, 3, 9], [0, 10, 20, 90]))
    assert measured(fake, train) == {"intra_cluster": 3.0, "clusters": 2, "single": 1, "empty": 1}


def test_it_is_what_the_loops_find():
    fake, train = normal(40), normal(6, seed=1)
    assert measured(fake, train)["intra_cluster"] == pytest.approx(by_loops(fake, train), rel=1e-12)


def test_copies_have_0_and_noise_raises_it():
    train = 10 * normal(5)
    fake, noise = train.repeat(4, 1), normal(20, seed=1)
    values = [measured(fake + scale * noise, train)["intra_cluster"] for scale in (0, 0.01, 0.1, 1)]
    assert values[0] == 0 and values == sorted(set(values))
    assert measured(fake, train) == {"intra_cluster": 0, "clusters": 5, "single": 0, "empty": 0}


def test_identical_samples_count_with_their_zeros():
    fake = torch.tensor([[0.0], [0], [6]])
    assert measured(fake, torch.zeros(1, 1))["intra_cluster"] == pairwise_diversity(torch.cdist(fake, fake)) == 4


def test_samples_that_are_all_alone_have_no_number():
    numbers = measured(normal(3), torch.cat([normal(3), normal(2, seed=1) + 99]))
    assert math.isnan(numbers.pop("intra_cluster")) and numbers == {"clusters": 0, "single": 3, "empty": 2}


def test_diversity_is_the_mean_over_pairs():
    x = normal(7)
    pairs = [(x[i] - x[j]).norm().item() for i in range(7) for j in range(i)]
    assert pairwise_diversity(torch.cdist(x, x)) == pytest.approx(sum(pairs) / 21, rel=1e-12)


@pytest.mark.parametrize(
    "call, message",
    [
        (lambda: intra_cluster(torch.zeros(3, 2), torch.zeros(3, 2)), r"found \(3, 2\) and \(3, 2\)"),
        (lambda: intra_cluster(torch.zeros(3), torch.zeros(3, 3)), r"found \(3,\) and \(3, 3\)"),
        (lambda: pairwise_diversity(torch.zeros(1, 1)), r"between 2 samples or more, \(N, N\), found \(1, 1\)"),
        (lambda: pairwise_diversity(torch.zeros(2, 3)), r"found \(2, 3\)"),
    ],
)
def test_what_is_no_table_of_distances(call, message):
    with pytest.raises(ValueError, match=message):
        call()

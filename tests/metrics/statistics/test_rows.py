"""Rows of features: an image lies at distance 0 from its copy, however far both are from the origin."""

import torch

from metrics.statistics.neighbours import precision_recall
from metrics.statistics.rows import distances


def test_copies_are_at_0_exactly():
    x = 1000 + torch.randn(40, 30, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    found = distances(x, x)
    assert not found.diagonal().any() and found.fill_diagonal_(1).gt(0).all()
    assert precision_recall(x, x[:1].repeat(9, 1)) == (1, 1 / 40)


def test_distances_are_euclidean():
    x, y = torch.tensor([[0.0, 0], [3, 4]]), torch.tensor([[3.0, 4], [0, 4], [0, -2]])
    assert distances(x, y).tolist() == [[5, 4, 2], [0, 3, torch.tensor(45.0).sqrt()]]

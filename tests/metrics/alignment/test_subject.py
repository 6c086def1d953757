"""A subject's score and drift against loops over all pairs in numpy."""

import math

import numpy as np
import pytest
import torch

from metrics.alignment.subject import drift, subject_score


def features(count, seed):
    return torch.randn(count, 6, generator=torch.Generator().manual_seed(seed)) + 1


def cosine(a, b):
    return float(np.dot(a, b) / math.sqrt(np.dot(a, a) * np.dot(b, b)))


def test_the_score_is_the_mean_cosine_of_all_pairs_and_stands_beside_that_of_the_photographs():
    x, y = features(5, 0), features(4, 1)
    score, real = subject_score(x, y)
    assert score == pytest.approx(np.mean([cosine(a, b) for a in x.numpy() for b in y.numpy()]), abs=1e-6)
    pairs = [cosine(y[i].numpy(), y[j].numpy()) for i in range(4) for j in range(4) if i != j]
    assert real == pytest.approx(np.mean(pairs), abs=1e-6)
    assert subject_score(y, y)[0] > real  # copies score above the photographs' own line
    assert subject_score(3 * x, y)[0] == pytest.approx(score) and math.isnan(subject_score(x, y[:1])[1])


def test_drift_is_what_changed_over_what_differs():
    before, after = features(5, 0), features(5, 0) + 0.3 * features(5, 2)
    moved = np.mean([1 - cosine(a, b) for a, b in zip(before.numpy(), after.numpy())])
    others = [1 - cosine(before[i].numpy(), before[j].numpy()) for i in range(5) for j in range(5) if i != j]
    numbers = drift(before, after)
    assert numbers["drift_cosine"] == pytest.approx(moved, abs=1e-6)
    assert numbers["drift"] == pytest.approx(moved / np.mean(others), abs=1e-6)
    assert drift(before, before)["drift"] == pytest.approx(0, abs=1e-9)
    assert drift(before, before.roll(1, 0))["drift"] > 0.5
    with pytest.raises(ValueError, match="one by one, found 5 before and 4 after"):
        drift(before, after[:4])

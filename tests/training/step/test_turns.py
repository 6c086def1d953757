"""Batches of one bucket: each bucket its share, every image as often as any other."""

from collections import Counter

import pytest
import torch

from config.training import Loop
from training.step.turns import batch_index, steps_of, turns_of

BUCKETS = [torch.tensor([0, 3, 4, 7, 8]), torch.tensor([1]), torch.tensor([2, 5, 6])]


@pytest.mark.parametrize("batch", [1, 2, 4, 7])
def test_every_image_is_seen_as_often_as_any_other(batch):
    """Exactly so after as many batches as there are images, and again after each further round."""
    counts = Counter()
    for number in range(3 * 9):
        index = batch_index(9, batch, number, 0, BUCKETS)
        assert len(index) == batch and any(set(index.tolist()) <= set(bucket.tolist()) for bucket in BUCKETS)
        counts.update(index.tolist())
        if number % 9 == 8:
            assert set(counts.values()) == {batch * (number // 9 + 1)} and len(counts) == 9


def test_turns_are_evenly_spread():
    turns = turns_of((50, 10, 1))
    for end in range(1, 61):
        seen = Counter(bucket for bucket, _ in turns[:end])
        assert all(abs(seen[bucket] - end * size / 61) <= 1 for bucket, size in enumerate((50, 10, 1)))


def test_a_batch_depends_on_its_number_and_the_seed_alone():
    first = [batch_index(9, 3, number, 5, BUCKETS).tolist() for number in range(20)]
    assert [batch_index(9, 3, number, 5, BUCKETS).tolist() for number in reversed(range(20))] == first[::-1]
    assert [batch_index(9, 3, number, 6, BUCKETS).tolist() for number in range(20)] != first


def test_without_buckets_the_order_is_one_row():
    whole = torch.cat([batch_index(9, 3, number, 0) for number in range(6)])
    assert sorted(whole[:9].tolist()) == sorted(whole[9:].tolist()) == list(range(9))


@pytest.mark.parametrize(
    "epochs, n, batch, accumulate, steps", [(10, 100, 4, 2, 125), (1, 9, 4, 2, 2), (0, 9, 4, 2, 7)]
)
def test_epochs_are_passes_over_the_images(epochs, n, batch, accumulate, steps):
    assert steps_of(Loop(steps=7, epochs=epochs, batch=batch, accumulate=accumulate), n) == steps

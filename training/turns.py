"""Which images are in a micro-batch: a function of its number and the seed, so that a resumed run goes on the same."""

from collections.abc import Sequence
from functools import cache

import torch
from torch import Tensor

from ops.random import generator_for


def batch_index(n: int, batch: int, number: int, seed: int, buckets: Sequence[Tensor] = ()) -> Tensor:
    """Image numbers (batch,) of micro-batch `number`: an endless row of shuffled passes over all n, cut in batches.

    buckets: the numbers of the images that may share a batch, where not all may. Each bucket has a row of its own, and
    as large a share of the batches as of the images: after n batches every image has been in `batch` of them.
    """
    if not buckets:
        return row_of_passes(n, batch, number, seed)
    turns = turns_of(tuple(map(len, buckets)))
    bucket, turn = turns[number % len(turns)]
    turn += number // len(turns) * len(buckets[bucket])
    return buckets[bucket][row_of_passes(len(buckets[bucket]), batch, turn, seed, bucket)]


def row_of_passes(n: int, batch: int, number: int, seed: int, *bucket: int) -> Tensor:
    """Places number * batch .. (number + 1) * batch of an endless row of shuffled passes over 0 .. n - 1."""
    places = range(number * batch, (number + 1) * batch)
    order = {k: torch.randperm(n, generator=generator_for(seed, -1 - k, *bucket)) for k in {p // n for p in places}}
    return torch.stack([order[place // n][place % n] for place in places])


@cache
def turns_of(sizes: tuple[int, ...]) -> list[tuple[int, int]]:
    """(bucket, how many turns it has had) of sum(sizes) batches: bucket b has sizes[b] of them, evenly spread."""
    total = sum(sizes)
    times = [((turn + 0.5) * total / size, bucket, turn) for bucket, size in enumerate(sizes) for turn in range(size)]
    return [(bucket, turn) for _, bucket, turn in sorted(times)]

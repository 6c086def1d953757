"""Which images are in a micro-batch: a function of its number and the seed, so that a resumed run goes on the same."""

from collections.abc import Sequence
from functools import cache, lru_cache

import torch
from torch import Tensor

from config.training import Loop
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
    return torch.stack([shuffled(n, seed, place // n, *bucket)[place % n] for place in places])


@lru_cache(maxsize=16)
def shuffled(n: int, seed: int, number: int, *bucket: int) -> Tensor:
    """0 .. n - 1 (n,) in the order of pass `number`, kept for the batches of the pass."""
    return torch.randperm(n, generator=generator_for(seed, -1 - number, *bucket))


def steps_of(options: Loop, n: int) -> int:
    """The steps of a run on n images: those of the settings, or as many as `epochs` passes over the images take."""
    images = options.batch * options.accumulate  # in a step
    return -(-options.epochs * n // images) if options.epochs else options.steps


def images_of(names: Sequence[str], options: Loop, step: int, seed: int, buckets: Sequence[Tensor] = ()) -> list[str]:
    """The names of all images of a step, sorted."""
    numbers = range(step * options.accumulate, (step + 1) * options.accumulate)
    of_step = (batch_index(len(names), options.batch, number, seed, buckets) for number in numbers)
    return sorted({names[i] for index in of_step for i in index})


@cache
def turns_of(sizes: tuple[int, ...]) -> list[tuple[int, int]]:
    """(bucket, how many turns it has had) of sum(sizes) batches: bucket b has sizes[b] of them, evenly spread."""
    total = sum(sizes)
    times = [((turn + 0.5) * total / size, bucket, turn) for bucket, size in enumerate(sizes) for turn in range(size)]
    return [(bucket, turn) for _, bucket, turn in sorted(times)]

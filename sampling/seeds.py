"""What the noise of a sample is made of: a seed, what the sample shows, and its number among those that show it."""

from collections import defaultdict
from collections.abc import Sequence
from hashlib import sha256
from itertools import count


def sample_seeds(seed: int, shown: Sequence[str]) -> list[tuple[int, int, int]]:
    """(seed, its name as a number, how many before it have the name) of each sample, by what it is `shown`.

    So the samples of a class or prompt do not depend on those of others. Spaces around a name say nothing.
    """
    places = defaultdict(count)
    return [(seed, int.from_bytes(sha256(name.strip().encode()).digest()[:8]), next(places[name])) for name in shown]

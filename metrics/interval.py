"""How far a number would move on other images of the same kind: its values on resamples of the images at hand.

    s_b = s(x[i_b]),    i_b: n of n indices drawn with replacement (the bootstrap, Efron 1979), or m < n without

Resamples drawn with replacement hold images twice. A statistic that compares the images of one set with each other
must leave out the pairs of an image with itself, as kid does, or it takes them for copies.
"""

from collections.abc import Callable

import torch
from torch import Tensor


def resample(
    statistic: Callable[..., Tensor | float],
    counts: tuple[int, ...],
    generator: torch.Generator,
    times: int = 100,
    size: int | None = None,
) -> Tensor:
    """statistic(i, j, ...) on `times` resamples of sets of `counts` images -> (times,) float64.

    size: draw so many, or as many as the smallest set has, without replacement. A draw of one image alone, of a set
    that has others, is drawn again: it holds no pair.
    """

    def draw(n):
        if size is not None:
            return torch.randperm(n, generator=generator, device=generator.device)[: min(size, *counts)]
        index = torch.randint(n, (n,), generator=generator, device=generator.device)
        return index if n == 1 or (index != index[0]).any() else draw(n)

    values = [float(statistic(*(draw(n).cpu() for n in counts))) for _ in range(times)]
    return torch.tensor(values, dtype=torch.float64)

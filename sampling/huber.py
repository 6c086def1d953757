"""Pseudo-Huber loss with a threshold by the noise (Khrapov et al. 2024, arXiv 2403.16728), as kohya's trainer has it.

    l(e) = 2 c (sqrt(e^2 + c^2) - c)          e^2 where |e| is far below c, 2 c |e| where it is far above

One wrong pixel, or one bad image of a few, then pulls as its error and not as its square. c of a sample at time t:

    constant       c
    exponential    c^(t / T)                              1 without noise, c at the end
    snr            (1 - c) / (1 + sigma / alpha)^2 + c    the same ends, by the noise itself; the default

So details, learned from little noise, are learned by the squared error, and compositions by the robust one.
"""

import math
from typing import NamedTuple

from torch import Tensor

from sampling.schedule import NoisePath, Schedule

SCHEDULES = ("snr", "exponential", "constant")


class Huber(NamedTuple):
    """c > 0 and its schedule, one of SCHEDULES."""

    c: float
    schedule: str = "snr"

    def loss(self, square: Tensor, t: Tensor, path: NoisePath) -> Tensor:
        """l(e) of e^2 (B, ...), entry by entry, for samples of the times t (B,)."""
        c = self.threshold(t, path).view(-1, *(1 for _ in square.shape[1:])).to(square)
        # 2 c (sqrt(e^2 + c^2) - c) as a quotient: the difference would cancel where e is small
        return 2 * c * square / ((square + c**2).sqrt() + c)

    def threshold(self, t: Tensor, path: NoisePath) -> Tensor:
        """c of each sample (B,)."""
        if self.schedule == "snr":
            return (1 - self.c) / (1 + path.snr(t).rsqrt()) ** 2 + self.c
        if self.schedule == "exponential":
            share = t / len(path.alpha_bar) if isinstance(path, Schedule) else t  # t / T; of a flow it is its time
            return (math.log(self.c) * share).exp()
        return (0 * t + self.c).float()

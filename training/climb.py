"""A loss that climbs is said while it does: the mean of the last steps against the best such mean so far."""

from collections import deque
from collections.abc import Iterable

STEPS = 20  # in a mean: the loss of fewer says more of the timesteps that they drew than of the model
FACTOR = 3.0  # of the best mean


class Climb:
    """The losses of a run as they come; says once that they climb."""

    def __init__(self, losses: Iterable[float] = ()):
        """losses: of the steps before a resumption."""
        self.last: deque[float] = deque(maxlen=STEPS)
        self.best, self.step, self.steps, self.said = float("inf"), 0, 0, False
        for loss in losses:
            self.add(loss)

    def add(self, loss: float) -> str:
        """The loss of the next step -> what is to be said now, "" for nothing."""
        self.last.append(loss)
        self.steps += 1
        mean = sum(self.last) / len(self.last)
        if len(self.last) < STEPS:
            return ""
        if mean < self.best:
            self.best, self.step = mean, self.steps
        if self.said or mean <= FACTOR * self.best:
            return ""
        self.said = True
        return (
            f"the loss climbs: the mean of the last {STEPS} steps is {mean:.3g} at step {self.steps}, and was "
            f"{self.best:.3g} at step {self.step}; the model gets worse: train with a lower --lr, a longer --warmup or "
            f"a smaller --clip"
        )

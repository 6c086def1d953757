"""What a run leaves when its steps are done: its plot, the files of its recipe, its page."""

from collections.abc import Callable
from functools import partial
from pathlib import Path

from torch import nn

from ops.machine.process import by_first
from training.page import write_page
from training.plot import plot
from training.state import State, averaged


def finish(run: Path, model: nn.Module, state: State, make: Callable[[Path], None]) -> None:
    """make(run) writes the recipe's files, with the best or averaged weights in the model."""
    by_first(partial(plot, run))
    with averaged(model, state.parameters, state.best or state.ema):
        by_first(partial(make, run))
    by_first(partial(write_page, run))

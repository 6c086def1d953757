"""What a run leaves when its steps are done: its plot, the files of its recipe, its page."""

from collections.abc import Callable
from pathlib import Path

from torch import nn

from training.page import write_page
from training.plot import plot
from training.state import State, averaged


def finish(run: Path, model: nn.Module, state: State, make: Callable[[Path], None]) -> None:
    """make(run) writes the recipe's files, with the best or averaged weights in the model."""
    plot(run)
    with averaged(model, state.parameters, state.best or state.ema):
        make(run)
    write_page(run)

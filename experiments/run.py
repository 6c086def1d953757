"""One run of train.py in a process of its own, and samples of it; what is finished is not done again.

Beside the folder RUN of a run lie its settings (RUN.toml), all that it printed (RUN.log) and, if it failed, the last
line of that (RUN.error).
"""

import signal
import subprocess
import sys
import time
import tomllib
from pathlib import Path
from types import FrameType

import sample
from border import read_table
from config import to_toml
from data.output.atomic import write_atomic
from data.output.samples import GRID
from experiments.settings import flags, read_by_recipe

TRAIN = Path(__file__).resolve().parent.parent / "train.py"
RESULTS = ("adapter.safetensors", "model.safetensors", "model", "control.safetensors", "control")  # of a finished run


class TrainingFailed(ValueError):
    """train.py ended with an error; the message is its last line."""


def is_finished(run: Path) -> bool:
    """Whether the run has left one of RESULTS, which train.py writes last."""
    return any((run / name).exists() for name in RESULTS)


def write_settings(run: Path, settings: dict) -> None:
    """Write RUN.toml. ValueError if the run was begun with other settings: its numbers would belong to those."""
    path, text = Path(f"{run}.toml"), to_toml(settings)
    if run.exists() and path.exists():
        old, new = (read_by_recipe(settings, table) for table in (read_table(path), tomllib.loads(text)))
        if old != new:
            raise ValueError(f"{path}: the run was begun with other settings; delete {run} or give another out folder")
    write_atomic(path, text.encode())


def train(run: Path, settings: dict) -> Path:
    """Train a run, or resume it, unless it is finished; returns its folder.

    A signal is passed on to train.py, which ends its step and saves; then this process exits with 128 + its number.
    Raises TrainingFailed, and ValueError for a run that was begun with other settings.
    """
    write_settings(run, settings)
    if is_finished(run):
        return run
    signals, error, resume = [], Path(f"{run}.error"), ["--resume"] if (run / "config.toml").exists() else []
    command = [sys.executable, "-u", TRAIN, f"{run}.toml", "--out", run, *resume]  # -u: its error is the last line
    with open(f"{run}.log", "ab") as log:
        process = subprocess.Popen(command, stdout=log, stderr=subprocess.STDOUT)

        def pass_on(number: int, frame: FrameType | None) -> None:
            signals.append(number)
            process.send_signal(number)

        handlers = {number: signal.signal(number, pass_on) for number in (signal.SIGINT, signal.SIGTERM)}
        code = process.wait()
    for number, handler in handlers.items():
        signal.signal(number, handler)
    error.unlink(missing_ok=True)
    if signals:
        sys.exit(128 + signals[0])
    if code:
        printed = Path(f"{run}.log").read_text(errors="replace").replace("\r", "\n").strip()
        last = printed.split("\n")[-1] if code > 0 else f"killed by signal {-code}"
        write_atomic(error, last.encode())
        raise TrainingFailed(f"{run.name}: {last} (all that it printed: {run}.log)")
    return run


def sample_once(folder: Path, settings: dict) -> Path:
    """Write samples into a folder by sample.py, unless the overview, which it writes last, is there.

    FOLDER.seconds beside it holds what the call took, loading included.
    """
    if not (folder / GRID).exists():
        began = time.perf_counter()
        sample.main(flags({"out": str(folder)} | settings))
        write_atomic(Path(f"{folder}.seconds"), f"{time.perf_counter() - began:.3f}\n".encode())
    return folder

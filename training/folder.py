"""The folder of a run: claimed at once by one process, and left as it was where a run fails before its first step."""

import contextlib
import os
from collections.abc import Iterator
from pathlib import Path

try:
    import fcntl
except ImportError:  # Windows has none: two processes in one folder are not told apart there
    fcntl = None

LOCK = ".lock"


@contextlib.contextmanager
def claimed(run: Path, resume: bool) -> Iterator[None]:
    """The folder, made if it is missing, belongs to this process for as long as the block runs.

    Raises ValueError for a folder that another process holds, and unless `resume` for one that holds a run. A block
    that fails before it has written anything leaves no folder that was not there.
    """
    made = [folder for folder in (run, *run.parents) if not folder.exists()]
    run.mkdir(parents=True, exist_ok=True)
    remove_strays(run)
    with open(run / LOCK, "a") as lock:
        if fcntl:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except OSError:
                raise ValueError(f"{run}: another process is training in this folder") from None
        try:
            if not resume and any(path.name != LOCK for path in run.iterdir()):
                raise ValueError(
                    f"{run} holds a run already: go on with it by --resume, or name another folder by --out"
                )
            yield
        finally:
            (run / LOCK).unlink(missing_ok=True)
            for folder in made:
                with contextlib.suppress(OSError):  # it holds something, and stays
                    folder.rmdir()


def next_run() -> Path:
    """The first runs/NNN that does not exist."""
    return next(path for number in range(1, 10_000) if not (path := Path("runs") / f"{number:03d}").exists())


def remove_strays(run: Path) -> None:
    """Remove the temporary files that a killed process left in the folder (see data/output/atomic.py)."""
    for stray in run.rglob(".*.tmp"):
        with contextlib.suppress(OSError):
            os.unlink(stray)

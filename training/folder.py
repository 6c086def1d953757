"""The folder of a run: claimed at once by one process, and left as it was where a run fails before its first step."""

import contextlib
import os
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import TextIO

from data.output.atomic import remove_abandoned
from ops.machine.process import by_first
from training.log import read_log
from training.state import has_state

try:
    import fcntl
except ImportError:  # Windows has none: two processes in one folder are not told apart there
    fcntl = None

LOCK = ".lock"
# what a run writes before its first step
EARLY = ("config.toml", "log.jsonl", "index.html", "nearest.png", f"samples/step_{0:06d}.png")


@contextlib.contextmanager
def claimed(out: str, resume: bool) -> Iterator[Path]:
    """The folder `out`, or the next free runs/NNN for "", made if it is missing, of this process alone in the block.

    The processes of torchrun have one folder, which the first claims.

    Raises ValueError for a folder that another process holds or that cannot be written into, and unless `resume` for
    one that holds anything. A block that fails before the first step of its run leaves the folder as it found it.
    """
    with contextlib.ExitStack() as stack:
        yield by_first(lambda: stack.enter_context(held(out, resume)))


@contextlib.contextmanager
def held(out: str, resume: bool) -> Iterator[Path]:
    """`claimed`, in the process that claims."""
    run, made = (Path(out), new_folders(Path(out))) if out else next_run()
    with contextlib.ExitStack() as stack:
        stack.callback(remove_empty, made)
        stack.enter_context(locked(run))
        remove_abandoned(run.rglob(".*.tmp"))
        if not resume and any(path.name != LOCK for path in run.iterdir()):
            raise ValueError(f"{run} holds a run already: go on with it by --resume, or name another folder by --out")
        check_writable(run)
        try:
            yield run
        except BaseException:
            if not resume and not begun(run):
                remove_early(run)
            raise


@contextlib.contextmanager
def locked(run: Path) -> Iterator[None]:
    """The block holds the lock of the folder. ValueError if another process holds it, or no file can be made."""
    try:
        lock: TextIO = open(run / LOCK, "a")
    except OSError as error:
        raise ValueError(f"{run}: the run folder cannot be written into ({error.strerror})") from None
    with lock:
        try:
            if fcntl:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            if not os.path.samestat(os.fstat(lock.fileno()), os.stat(run / LOCK)):  # its owner has just removed it
                raise BlockingIOError
        except OSError:
            raise ValueError(f"{run}: another process is training in this folder") from None
        try:
            yield
        finally:
            (run / LOCK).unlink(missing_ok=True)


def new_folders(run: Path) -> list[Path]:
    """Make the folder; those that were not there, the innermost first."""
    if run.is_file():
        raise ValueError(f"{run}: a file, expected a folder for the run")
    made = [folder for folder in (run, *run.parents) if not folder.exists()]
    try:
        run.mkdir(parents=True, exist_ok=True)
    except OSError:
        remove_empty(made)
        raise
    return made


def next_run() -> tuple[Path, list[Path]]:
    """The first runs/NNN that does not exist, made by this process alone, and the folders that it made for it."""
    made = new_folders(Path("runs"))
    for number in range(1, 1_000_000):
        run = Path("runs") / f"{number:03d}"
        with contextlib.suppress(FileExistsError):
            run.mkdir()
            return run, [run, *made]
    raise ValueError("runs/ is full: name a folder by --out")


def check_writable(run: Path) -> None:
    """ValueError for a folder in which no file can be made, though its lock could be opened."""
    try:
        with tempfile.NamedTemporaryFile(dir=run, prefix=".probe.", suffix=".tmp"):
            pass
    except OSError as error:
        raise ValueError(f"{run}: the run folder cannot be written into ({error.strerror})") from None


def begun(run: Path) -> bool:
    """Whether a step of the run was done."""
    return has_state(run) or any("loss" in line for line in read_log(run))


def remove_early(run: Path) -> None:
    """Remove what a run writes before its first step."""
    for name in EARLY:
        with contextlib.suppress(OSError):
            (run / name).unlink()
    remove_empty([run / "samples"])


def remove_empty(folders: list[Path]) -> None:
    """Remove those of the folders that hold nothing, in this order."""
    for folder in folders:
        with contextlib.suppress(OSError):
            folder.rmdir()

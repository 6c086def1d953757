"""Atomic writing: a file is the old one or the whole new one. Temporary file in the same folder, fsync, os.replace.

A process that writes holds the lock of its temporary file. One whose lock nobody holds was left by a killed process,
and the next that writes the same file removes it.
"""

import contextlib
import glob
import os
import tempfile
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import BinaryIO

try:
    import fcntl
except ImportError:  # Windows has none: what a killed process left stays there
    fcntl = None


@contextlib.contextmanager
def replacing(path: str | Path) -> Iterator[BinaryIO]:
    """Opens a temporary file beside `path` for writing bytes; on success it replaces `path` in one step.

    After a crash, a full disk or a kill at any moment the old file is as it was. The name of the temporary file begins
    with a dot, so that no reader of the folder takes it for a finished file. Missing parent folders are made.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    remove_abandoned(path.parent.glob(f".{glob.escape(path.name)}.*.tmp"))
    handle, temporary = new_temporary(path)
    try:
        with os.fdopen(handle, "wb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        os.chmod(temporary, 0o644)  # mkstemp makes it readable by its owner only
        os.replace(temporary, path)
    except BaseException:
        os.unlink(temporary)
        raise


def new_temporary(path: Path) -> tuple[int, str]:
    """(descriptor, name) of a new file beside `path` that this process holds the lock of until it closes it."""
    while True:
        handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.", suffix=".tmp")
        with contextlib.suppress(OSError):  # of a file system without locks
            if fcntl:
                fcntl.flock(handle, fcntl.LOCK_EX)
        if os.path.exists(name):  # before it was locked, another process may have taken it for abandoned
            return handle, name
        os.close(handle)


def remove_abandoned(temporaries: Iterable[Path]) -> None:
    """Remove those of the temporary files that no living process writes."""
    for stray in temporaries if fcntl else ():
        with contextlib.suppress(OSError), open(stray, "rb") as file:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            stray.unlink()


def write_atomic(path: str | Path, content: bytes) -> None:
    """`content` becomes the whole of `path`. OSError (disk full, read-only folder) leaves the old file in place."""
    with replacing(path) as file:
        file.write(content)

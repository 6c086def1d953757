"""Atomic writing: a file is the old one or the whole new one. Temporary file in the same folder, fsync, os.replace."""

import contextlib
import os
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO


@contextlib.contextmanager
def replacing(path: str | Path) -> Iterator[BinaryIO]:
    """Opens a temporary file beside `path` for writing bytes; on success it replaces `path` in one step.

    After a crash, a full disk or a kill at any moment the old file is as it was. The name of the temporary file begins
    with a dot, so that no reader of the folder takes it for a finished file. Missing parent folders are made.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.", suffix=".tmp")
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


def write_atomic(path: str | Path, content: bytes) -> None:
    """`content` becomes the whole of `path`. OSError (disk full, read-only folder) leaves the old file in place."""
    with replacing(path) as file:
        file.write(content)

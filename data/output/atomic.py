"""A file is either the old one or the whole new one: temporary file in the same folder, fsync, os.replace."""

import contextlib
import os
import tempfile
from pathlib import Path


@contextlib.contextmanager
def replacing(path: str | Path):
    """Opens a temporary file beside `path` for writing bytes; on success it takes the place of `path` in one step.

    A crash, a full disk or a kill at any moment leaves the old file as it was. The temporary file begins with a dot, so
    that nothing that reads the folder takes it for a finished one. Missing parent folders are made.
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
    """`content` as the whole of `path`. Raises OSError (disk full, read-only folder), the old file still in place."""
    with replacing(path) as file:
        file.write(content)

"""A file is either the old one or the whole new one: temporary file in the same folder, fsync, os.replace."""

import os
import tempfile
from pathlib import Path


def write_atomic(path: str | Path, content: bytes) -> None:
    """Write `content` to `path`; a crash, a full disk or a kill at any moment leaves the old file as it was.

    The temporary file begins with a dot, so that nothing that reads the folder takes it for a finished one.
    Missing parent folders are made. Raises OSError (disk full, read-only folder) after removing the temporary file.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.", suffix=".tmp")
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        os.chmod(temporary, 0o644)  # mkstemp makes it readable by its owner only
        os.replace(temporary, path)
    except BaseException:
        os.unlink(temporary)
        raise

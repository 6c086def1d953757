"""A process as a whole, from the start of Python to its end: its seconds and its peak of memory."""

import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
GIB = 2**30
MAXRSS = (1 if sys.platform == "darwin" else 1024) / GIB  # macOS counts memory in bytes, Linux in KiB


class Failed(Exception):
    """A process that ended before it had done its work."""


def run(words: Sequence[str], folder: Path = ROOT) -> dict:
    """Python with these words, in this folder, until it ends -> seconds "wall" and "cpu", and "peak" in GiB.

    The peak begins with that of the process that calls this, which therefore must be small: it imports no torch.
    Raises Failed, with the last words that were printed, for a process that ends by an error or a signal.
    """
    with tempfile.TemporaryFile("w+") as printed:
        # as a user's second run: with the byte code that the first has written
        own = {name: value for name, value in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"}
        began, pipes = time.perf_counter(), {"stdout": printed, "stderr": subprocess.STDOUT}
        process = subprocess.Popen([sys.executable, *words], cwd=folder, env=own, **pipes)
        _, status, used = os.wait4(process.pid, 0)  # unlike `wait`, it tells what this one child used
        wall, process.returncode = time.perf_counter() - began, os.waitstatus_to_exitcode(status)
        if process.returncode:  # a negative one is the signal that ended it, -9 where memory ran out
            printed.seek(0)
            raise Failed(failure(" ".join(words), process.returncode, printed.read()))
    return {"wall": wall, "cpu": used.ru_utime + used.ru_stime, "peak": used.ru_maxrss * MAXRSS}


def failure(what: str, status: int, printed: str) -> str:
    """The sentence for a process that failed."""
    last = printed.strip().splitlines()[-1:]
    return f"{what}: exit status {status}, {' '.join(last) or 'nothing printed'}"

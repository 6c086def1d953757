"""The most memory that a piece of work takes, in a process of its own. Linux alone: /proc, fork."""

import os
from collections.abc import Callable
from pathlib import Path


def taken(work: Callable[[], object]) -> int:
    """Bytes at the peak of the work above what the process held before it, in a fork. OSError if the work fails."""
    read, write = os.pipe()
    if not os.fork():
        before = resident()
        try:
            work()
            os.write(write, str(peak() - before).encode())
        finally:
            os._exit(0)
    os.close(write)
    os.wait()
    with open(read) as answer:
        text = answer.read()
    if not text:
        raise OSError("the work failed in its process")
    return int(text)


def resident() -> int:
    """Bytes of memory that the process holds; the peak is counted from here on."""
    Path("/proc/self/clear_refs").write_text("5")
    return status("VmRSS")


def peak() -> int:
    return status("VmHWM")


def status(name: str) -> int:
    """Bytes of a line of /proc/self/status."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next((1024 * int(line.split()[1]) for line in lines if line.startswith(name + ":")), 0)

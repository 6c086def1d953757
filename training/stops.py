"""Ctrl-C and SIGTERM: the first lets the step in progress end and be saved, the second leaves at once."""

import os
import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

SIGNALS = (signal.SIGINT, signal.SIGTERM)


@contextmanager
def graceful_stop(what: str) -> Iterator[list[int]]:
    """A list that the first signal fills while the block runs; then the former handlers are back.

    what: what is waited for, "the step in progress". A second signal ends the process, with the last checkpoint whole.
    """
    caught: list[int] = []

    def handle(number: int, frame: FrameType | None) -> None:
        if caught:
            os.write(2, b"\nleft at once; the last checkpoint is whole\n")  # print may be interrupted by itself here
            os._exit(128 + number)
        caught.append(number)
        print(f"\n{signal.Signals(number).name}: waiting for {what}; again leaves at once", file=sys.stderr)

    before = {number: signal.signal(number, handle) for number in SIGNALS}
    try:
        yield caught
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)

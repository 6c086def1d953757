"""Ctrl-C and SIGTERM: the first lets what is in progress end and be saved, the second leaves at once.

Where there is nothing to wait for, before the first step and after the last, the first leaves at once too.
"""

import os
import signal
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

from ops.machine.process import highest

SIGNALS = (signal.SIGINT, signal.SIGTERM)


class Stop:
    """What a signal asks for. True once one was caught and the run is to end as soon as it can."""

    def __init__(self) -> None:
        self.number = 0  # of the signal that was caught
        self.wait_for = ""  # what a first signal waits for, "step 5"; "": nothing, and it leaves
        self.state = "before the first step"  # what is said where it leaves
        self.leaving = False

    def __bool__(self) -> bool:
        return bool(self.number)

    def asked(self) -> bool:
        """Whether a signal reached any of the processes: all leave after the same step."""
        self.number = highest(self.number)
        return bool(self)

    def handle(self, number: int, frame: FrameType | None) -> None:
        """The handler of both signals. A third one kills the process, whatever it does."""
        name = signal.Signals(number).name
        if self.leaving:
            os._exit(128 + number)
        if self.wait_for and not self.number:
            self.number = number
            say(f"{name}: waiting for {self.wait_for}; again leaves at once")
            return
        self.leaving = True
        say(f"{name}: left at once, {self.state}")
        sys.exit(128 + number)


def say(text: str) -> None:
    """A line on stderr from a handler, which may have interrupted a print."""
    os.write(2, f"\n{text}\n".encode(errors="backslashreplace"))


@contextmanager
def graceful_stop() -> Iterator[Stop]:
    """What the signals of this process ask for while the block runs; then the former handlers are back."""
    stop = Stop()
    if threading.current_thread() is not threading.main_thread():  # only the main thread may set handlers
        yield stop
        return
    before = {number: signal.signal(number, stop.handle) for number in SIGNALS}
    try:
        yield stop
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)

"""Progress that is readable everywhere: a bar on a terminal, in a file or pipe a line now and then."""

import sys
from collections.abc import Iterable
from typing import TextIO

from tqdm import tqdm

from ops.machine.process import is_first

SECONDS = 10  # between two lines


class Lines:
    """A stream for tqdm that ends every state of the bar by a line end, where a terminal would overwrite it."""

    def __init__(self, stream: TextIO):
        self.stream, self.last = stream, ""

    def write(self, text: str) -> None:
        """Write the text as a line, unless it is the line before."""
        line = text.strip("\r\n ")
        if line and line != self.last:
            self.stream.write(line + "\n")
            self.last = line

    def flush(self) -> None:
        """Flush the stream."""
        self.stream.flush()


def progress(items: Iterable | None = None, desc: str = "", total: int | None = None, initial: int = 0) -> tqdm:
    """tqdm over the items, or to be updated by hand up to `total`; on stderr, of several processes by the first."""
    how = {"disable": not is_first()}
    if not sys.stderr.isatty():
        form = "{desc}: {n_fmt}/{total_fmt}, {elapsed} so far, {remaining} to go{postfix}"
        how |= {"file": Lines(sys.stderr), "mininterval": SECONDS, "miniters": 1, "delay": SECONDS, "bar_format": form}
    return tqdm(items, desc=desc, total=total, initial=initial, **how)

"""The log of a run: run/log.jsonl, one JSON object a line, a line for every step and every evaluation."""

import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from data.atomic import write_atomic

LOG = "log.jsonl"


def read_log(run: Path) -> list[dict]:
    """All lines that are whole: a killed run may leave half of a line at the end."""
    text = (run / LOG).read_text("utf-8")
    return [json.loads(line) for line in text[: text.rfind("\n") + 1].splitlines()]


@contextmanager
def open_log(run: Path, first: int) -> Iterator[Callable[[dict], None]]:
    """A function that appends a dict to the log; what an earlier try wrote after step `first` is dropped."""
    earlier = read_log(run) if (run / LOG).exists() else []
    kept = [
        line for line in earlier if line["step"] < first + ("loss" in line)
    ]  # the evaluation at `first` is repeated
    write_atomic(run / LOG, "".join(json.dumps(line) + "\n" for line in kept).encode())
    with open(run / LOG, "a", buffering=1, encoding="utf-8") as file:
        yield lambda numbers: file.write(json.dumps(numbers) + "\n") if numbers else None

"""The numbers of a run: log.jsonl, a JSON object for every step and every evaluation, and metrics.json, the table.

Some keys had other names once. Files that were written then are read under the names of today.
"""

import errno
import json
import math
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from border import read_json, to_json
from data.output.atomic import write_atomic
from ops.machine.process import is_first

RENAMED = {  # key once -> key today
    "asked_state": "class_accuracy",
    "asked_state_by_class": "class_accuracy_by_class",
    "asked_state_real": "class_accuracy_real",
    "asked_state_decoded": "class_accuracy_decoded",
    "fidelity": "feature_similarity",
    "fidelity_noise": "feature_similarity_deviation",
    "residual": "noise_residual",
    "residual_noise": "noise_residual_deviation",
}


def read_log(run: Path) -> list[dict]:
    """The lines of run/log.jsonl in order; [] without the file.

    The last line may be cut short, by a kill or a full disk: it is left out. Any other line that is no JSON object with
    a step is left out with a notice.
    """
    file = run / "log.jsonl"
    lines = [line.strip(b"\r \0") for line in file.read_bytes().split(b"\n")] if file.exists() else []
    parsed = [parse(line) for line in lines]
    lost = [number for number, line in enumerate(parsed[:-1], 1) if line is None and lines[number - 1]]
    if lost:
        print(f"{file}: line {lost[0]} is no line of a log; {len(lost)} such lines are left out", file=sys.stderr)
    return [renamed(line) for line in parsed if line is not None]


def parse(line: bytes) -> dict | None:
    """One line of a log; None for any other bytes."""
    try:
        numbers = json.loads(line.decode("utf-8"))
    except (ValueError, RecursionError):
        return None
    return numbers if isinstance(numbers, dict) and type(numbers.get("step")) is int else None


def read_numbers(run: Path) -> dict:
    """The table of run/metrics.json; {} without the file. ValueError that names it if it is not a JSON object."""
    file = run / "metrics.json"
    return renamed(read_json(file)) if file.exists() else {}


def renamed(numbers: dict) -> dict:
    """The same numbers in the same order under the keys of today, without null, which stands for no number."""
    return {RENAMED.get(key, key): value for key, value in numbers.items() if value is not None}


@contextmanager
def open_log(run: Path, first: int) -> Iterator[Callable[[dict], None]]:
    """A function that appends a dict to the log; what an earlier try wrote after step `first` is dropped.

    A number that is not finite is left out, for JSON has none. OSError with the file's name where it cannot be written.
    Of several processes the first writes.
    """
    if not is_first():
        yield lambda numbers: None
        return
    kept = [line for line in read_log(run) if line["step"] < first + ("loss" in line)]  # its evaluation is done again
    write_atomic(run / "log.jsonl", "".join(to_json(line) + "\n" for line in kept).encode())
    path = run / "log.jsonl"
    with open(path, "ab", buffering=0) as file:

        def log(numbers: dict) -> None:
            finite = {k: v for k, v in numbers.items() if not isinstance(v, float) or math.isfinite(v)}
            line = json.dumps(finite).encode() + b"\n"
            try:
                written = file.write(line) if numbers else 0
            except OSError as error:
                raise OSError(error.errno, f"{path}: its next {len(line)} bytes cannot be written, {error}") from error
            if numbers and written < len(line):
                raise OSError(errno.ENOSPC, f"{path}: {written} of its next {len(line)} bytes were written, disk full")

        yield log

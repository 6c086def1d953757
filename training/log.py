"""The numbers of a run: log.jsonl, a JSON object for every step and every evaluation, and metrics.json, the table.

Some keys had other names once. Files that were written then are read under the names of today.
"""

import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from border import to_json
from data.output.atomic import write_atomic

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
    """The lines of run/log.jsonl in order, without a last line that a killed run cut short; [] without the file.

    Raises ValueError (JSONDecodeError) for a line that is not JSON.
    """
    file = run / "log.jsonl"
    text = file.read_text("utf-8") if file.exists() else ""
    return [renamed(json.loads(line)) for line in text[: text.rfind("\n") + 1].splitlines()]


def read_numbers(run: Path) -> dict:
    """The table of run/metrics.json; {} without the file. ValueError (JSONDecodeError) if it is not JSON."""
    file = run / "metrics.json"
    return renamed(json.loads(file.read_text("utf-8"))) if file.exists() else {}


def renamed(numbers: dict) -> dict:
    """The same numbers in the same order under the keys of today, without null, which stands for no number."""
    return {RENAMED.get(key, key): value for key, value in numbers.items() if value is not None}


@contextmanager
def open_log(run: Path, first: int) -> Iterator[Callable[[dict], None]]:
    """A function that appends a dict to the log; what an earlier try wrote after step `first` is dropped."""
    kept = [line for line in read_log(run) if line["step"] < first + ("loss" in line)]  # its evaluation is done again
    write_atomic(run / "log.jsonl", "".join(to_json(line) + "\n" for line in kept).encode())
    with open(run / "log.jsonl", "a", buffering=1, encoding="utf-8") as file:
        yield lambda numbers: file.write(to_json(numbers) + "\n") if numbers else None

"""What the files of a run say about it: its log, its costs, and its state."""

from itertools import pairwise
from pathlib import Path
from statistics import median

from experiments.run import RESULTS, is_finished
from training.log import read_log, read_numbers


def column(lines: list[dict], name: str) -> list:
    """The values of one name, of the lines that have it."""
    return [line[name] for line in lines if name in line]


def costs(run: Path) -> dict:
    """Parameters, steps, seconds a step (median), peak memory in GiB, and the MB of what a run leaves for sampling."""
    lines = read_log(run)
    seconds = column(lines, "seconds")
    steps = [after - before for before, after in pairwise(seconds) if after >= before]  # a resumed run begins at 0
    results = [run / name for name in RESULTS if (run / name).exists()]
    files = [file for path in results for file in ([path] if path.is_file() else path.rglob("*")) if file.is_file()]
    return {key: line[key] for line in lines for key in ("trained", "total", "peak_gib") if key in line} | {
        "steps": len(seconds),
        "step_seconds": median(steps) if steps else None,
        "megabytes": sum(file.stat().st_size for file in files) / 1e6,
    }


def summary(run: Path) -> dict:
    """State, seconds of training, last and best losses of a run, and the numbers of its metrics.json."""
    lines, numbers, error = read_log(run), read_numbers(run), Path(f"{run}.error")
    seconds, losses = column(lines, "seconds"), column(lines, "loss")[-50:]
    held_out = [line["val"] for line in lines if "val" in line and line["step"]]  # step 0 has learned nothing yet
    state = "done" if is_finished(run) else "begun" if run.exists() else "waiting"
    return {
        "state of run": error.read_text() if error.exists() else state,
        "seconds trained": sum(last for last, after in pairwise([*seconds, 0]) if after < last),  # of every resumption
        "train loss": sum(losses) / len(losses) if losses else "",
        "best val": min(held_out, default=""),
    } | {name: value for name, value in numbers.items() if isinstance(value, int | float)}

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
    """Parameters, steps, seconds a step (median), minutes, peak memory in GiB, MB of what a run leaves for sampling."""
    lines = read_log(run)
    seconds = column(lines, "seconds")
    steps = [after - before for before, after in pairwise(seconds) if after >= before]  # a resumed run begins at 0
    results = [run / name for name in RESULTS if (run / name).exists()]
    files = [file for path in results for file in ([path] if path.is_file() else path.rglob("*")) if file.is_file()]
    return {key: line[key] for line in lines for key in ("trained", "total", "peak_gib") if key in line} | {
        "steps": len(seconds),
        "step_seconds": median(steps) if steps else None,
        "minutes": seconds_trained(seconds) / 60,
        "megabytes": sum(file.stat().st_size for file in files) / 1e6,
    }


def seconds_trained(seconds: list[float]) -> float:
    """Of the clock of each step, which every resumption begins at 0."""
    return sum(last for last, after in pairwise([*seconds, 0]) if after < last)


def seconds_a_picture(folder: Path, count: int) -> dict:
    """{"picture_seconds": what the call that sampled `count` pictures into the folder took for each}; {} if unknown."""
    file = Path(f"{folder}.seconds")
    return {"picture_seconds": float(file.read_text()) / count} if file.exists() else {}


def summary(run: Path) -> dict:
    """State, seconds of training, last and best losses of a run, and the numbers of its metrics.json."""
    lines, numbers, error = read_log(run), read_numbers(run), Path(f"{run}.error")
    seconds, losses = column(lines, "seconds"), column(lines, "loss")[-50:]
    held_out = [line["val"] for line in lines if "val" in line and line["step"]]  # step 0 has learned nothing yet
    state = "done" if is_finished(run) else "begun" if run.exists() else "waiting"
    return {
        "state of run": error.read_text() if error.exists() else state,
        "seconds trained": seconds_trained(seconds),
        "train loss": sum(losses) / len(losses) if losses else "",
        "best val": min(held_out, default=""),
    } | {name: value for name, value in numbers.items() if isinstance(value, int | float)}

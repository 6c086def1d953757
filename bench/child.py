"""A process for each row of the full-size benchmarks: its time, its peak memory; the table, and the command line.

A row's peak is the resident memory that the system counted for its process, mapped pages of the checkpoint included.
"""

import argparse
import json
import os
import re
import resource
import shlex
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

# torch and the package are imported by the parts alone: a child's count begins with the memory of its parent
if TYPE_CHECKING:
    from torch import Tensor, nn

    from sampling import Schedule

ROOT = Path(__file__).resolve().parent.parent
GIB = 2**30
MAXRSS = (1 if sys.platform == "darwin" else 1024) / GIB  # macOS counts memory in bytes, Linux in KiB


class Row(NamedTuple):
    """One row of the table: a command, or a stage of one."""

    what: str
    command: str
    seconds: float | None  # None: it failed
    peak: float  # GiB
    failure: str = ""  # why, where the row's own command failed
    printed: str = ""  # its last line: where a part's JSON is, after what loading and training print


def stage(began: float) -> tuple[float, float]:
    """(seconds since then, peak of this process so far in GiB)."""
    return time.perf_counter() - began, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * MAXRSS


def read_by(load: Callable) -> list:
    """`stage` of the imports, of load(weights) -> models, and of the same with every weight read once."""
    began = time.perf_counter()
    import weights

    imported, began = stage(began), time.perf_counter()
    models = load(weights)
    loaded = stage(began)
    for model in models:
        for parameter in model.parameters():
            parameter.detach().sum()
    return [imported, loaded, stage(began)]


def describe(models: "list[nn.Module]") -> dict:
    """Tensors and values of the models, and the threads and precision that they will run with."""
    import torch

    from ops.device import bf16

    values = [tensor.numel() for model in models for tensor in model.state_dict().values()]
    return {
        "tensors": len(values),
        "values": sum(values),
        "threads": torch.get_num_threads(),
        "precision": "bfloat16 autocast" if bf16("auto", torch.device("cpu")) else "float32",
    }


def guided_step(model: "nn.Module", shape: tuple, cond: "Tensor", null: "Tensor", schedule: "Schedule") -> float:
    """Seconds of one guided DDIM step for one image: half of what 4 steps take longer than 2."""
    import torch

    import sampling
    from ops.device import autocast

    seconds = {}
    with autocast("auto", torch.device("cpu")):
        for steps in (2, 2, 4):  # the first call reads the weights and does not count
            began = time.perf_counter()
            sampling.sample_latents(
                sampling.batched_cfg(model, cond, null, 4.0), range(1), shape, schedule, "ddim", steps
            )
            seconds[steps] = time.perf_counter() - began
    return (seconds[4] - seconds[2]) / 2


def words(command: str, work: Path) -> list[str]:
    """The command's words as a shell splits them, WORK in them replaced."""
    return [word.replace("WORK", str(work)) for word in shlex.split(command)]


def run(what: str, work: Path, command: str) -> Row:
    """One row: python with this command, WORK in it replaced, from the repository's root, until it ends."""
    arguments, began = words(command, work), time.perf_counter()
    with open(work / "stdout.txt", "w") as out, open(work / "stderr.txt", "w") as err:
        process = subprocess.Popen([sys.executable, *arguments], cwd=ROOT, stdout=out, stderr=err)
        _, status, usage = os.wait4(process.pid, 0)  # unlike `wait`, it tells the memory of this one child
    seconds, failure, process.returncode = time.perf_counter() - began, "", os.waitstatus_to_exitcode(status)
    if process.returncode:  # a negative one is the signal that ended it, -9 where memory ran out
        printed = (work / "stderr.txt").read_text().strip().replace(str(work), "WORK")
        print(printed, file=sys.stderr)
        failure = f"exit status {process.returncode}, {printed.splitlines()[-1] if printed else 'nothing printed'}"
    printed = (work / "stdout.txt").read_text().splitlines()[-1:]
    return Row(what, f"`python {command}`", None if failure else seconds, usage.ru_maxrss * MAXRSS, failure, *printed)


def staged(row: Row, *whats: str) -> list[Row]:
    """A row for each stage that the command printed, where the memory of each includes that of the ones before."""
    stages = [(None, row.peak)] * len(whats) if row.failure else json.loads(row.printed)
    commands = ["the same process, from there on"] + ["the same"] * (len(whats) - 2)
    later = [Row(what, command, *stage) for what, command, stage in zip(whats[1:], commands, stages[1:], strict=True)]
    return [row._replace(what=whats[0], seconds=stages[0][0], peak=stages[0][1]), *later]


def reading(row: Row, load: str = "weights.load") -> list[Row]:
    """The three rows of `read`."""
    return staged(row, row.what, load, f"{load}, every weight read once")


def guided_row(row: Row) -> Row:
    """The row of `guided_step`: seconds of the step, not of the process."""
    return row if row.failure else row._replace(seconds=json.loads(row.printed))


def machine(made: dict, load: float) -> list[str]:
    """The first lines of a page's list: what it was measured on and with."""
    cpuinfo, memory = Path("/proc/cpuinfo"), os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / GIB
    name = re.search(r"model name\s*: (.*)", cpuinfo.read_text()) if cpuinfo.exists() else None
    return [
        f"- {name[1] if name else os.uname().machine}, {os.cpu_count()} cores, "
        f"{memory:.1f} GiB of memory, load average {load:.1f} before the start",
        f"- torch {version('torch')}, {made['threads']} threads, {made['precision']} in training and sampling",
    ]


def table(rows: list[Row], file: int) -> list[str]:
    """The rows; memory of the first three, those of `reading`, as a share of the `file`'s bytes; what failed."""
    lines = ["| what | command | seconds | peak GiB |\n|---|---|---:|---:|"]
    for row in rows:
        seconds = "failed" if row.seconds is None else f"{row.seconds:.2f}"
        lines.append(f"| {row.what} | {row.command} | {seconds} | {row.peak:.2f} |")
    if not rows[0].failure:
        base, loaded, touched = (row.peak * GIB / file for row in rows[:3])
        lines.append(
            f"\nPeak over size of the file: {loaded:.2f} after loading, {touched:.2f} with every weight read; "
            f"less that of the imports, {loaded - base:.2f} and {touched - base:.2f}."
        )
    return lines + [f"\n{row.command} failed: {row.failure}" for row in rows if row.failure]


def room(work: Path, disk: float) -> float:
    """The load average; ValueError where the folder's disk has less than `disk` GiB left."""
    free = shutil.disk_usage(work).free / GIB
    if free < disk:
        raise ValueError(f"{work}: expected {disk} GiB of free disk, found {free:.1f}; choose it by --work")
    return os.getloadavg()[0]


def made_by(work: Path, command: str) -> dict:
    """What the part `make` printed; ValueError if it failed."""
    row = run("make", work, command)
    if row.failure:
        raise ValueError(f"{row.command} failed: {row.failure}")
    return json.loads(row.printed)


def step_ends(log: Path) -> list[float]:
    """Seconds at the end of each step, by a run's log.jsonl; counted from before the first grid."""
    return [line["seconds"] for line in map(json.loads, log.read_text().splitlines()) if "seconds" in line]


def main(parts: dict[str, Callable], sizes: tuple, measure: Callable, page: str, argv: list[str] | None = None) -> None:
    """The command line of a benchmark.

    parts: the functions (work, size) -> JSON that run in processes of their own; sizes: full and tiny;
    measure(work, size): the text of the page; page: the name of its file in docs/.
    """
    parser = argparse.ArgumentParser(description="Measure the commands of this package at full size.")
    parser.add_argument("part", nargs="?", choices=parts, help="one part of the benchmark, in the folder --work")
    parser.add_argument("--work", type=Path, help="where a temporary folder for all files is made")
    parser.add_argument("--out", type=Path, help=f"page to write; without: docs/{page}, none with --tiny")
    parser.add_argument("--tiny", action="store_true", help="small models: does the benchmark itself work?")
    options = parser.parse_args(argv)
    size = sizes[options.tiny]
    try:
        if options.work:
            options.work.mkdir(parents=True, exist_ok=True)
        if options.part:
            return print(json.dumps(parts[options.part](options.work, size)))
        with tempfile.TemporaryDirectory(prefix="full_size_", dir=options.work) as work:
            text = measure(Path(work).resolve(), size)
        print(text)
        if options.out or not options.tiny:
            (options.out or ROOT / "docs" / page).write_text(text)
    except (ValueError, OSError) as error:
        sys.exit(f"error: {error}")

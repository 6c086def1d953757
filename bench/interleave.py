"""Both sides of a row in turn, A B A B ..., each in its own process; the medians of what each took and of the ratios.

So a machine that is busy for a while slows both sides of a pair alike. Where memory has no room for both, a process
ends before the other starts, and starts anew in each round.
"""

import json
import os
import resource
import shlex
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from statistics import median

from bench.rows import Row

ROOT = Path(__file__).resolve().parent.parent
GIB = 2**30
MAXRSS = (1 if sys.platform == "darwin" else 1024) / GIB  # macOS counts memory in bytes, Linux in KiB


class Failed(Exception):
    """A side that ended before it answered."""


class Side:
    """The process of one side."""

    def __init__(self, side: str, size: dict, device: str):
        self.side = side
        if side.startswith("-"):
            self.words = [sys.executable, *shlex.split(side)]
            self.process = None
            return
        words = [sys.executable, "-m", "bench.worker", side, json.dumps(size), device]
        self.errors = tempfile.TemporaryFile("w+")
        pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": self.errors}
        self.process = subprocess.Popen(words, cwd=ROOT, text=True, **pipes)
        self.answer()

    def answer(self) -> str:
        """The next line that the process prints. Raises Failed, with its last words, if there is none."""
        line = self.process.stdout.readline()
        if not line:
            self.errors.seek(0)
            said = self.errors.read().strip().splitlines()[-1:]
            raise Failed(f"{self.side}: exit status {self.process.wait()}, {' '.join(said) or 'nothing printed'}")
        return line

    def step(self) -> dict:
        """wall, cpu and peak of one step, or of the whole process where the side is one."""
        if self.process is None:
            began, before = time.perf_counter(), resource.getrusage(resource.RUSAGE_CHILDREN)
            process = subprocess.Popen(self.words, cwd=ROOT)
            _, status, usage = os.wait4(process.pid, 0)  # it alone tells the memory of this one child
            process.returncode, after = os.waitstatus_to_exitcode(status), resource.getrusage(resource.RUSAGE_CHILDREN)
            if process.returncode:
                raise Failed(f"{self.side}: exit status {process.returncode}")
            cpu = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
            return {"wall": time.perf_counter() - began, "cpu": cpu, "peak": usage.ru_maxrss * MAXRSS}
        self.process.stdin.write("go\n")
        self.process.stdin.flush()
        return json.loads(self.answer())

    def end(self) -> None:
        """End the process, if it runs."""
        if self.process is not None:
            self.process.stdin.close()
            self.process.stdout.close()
            self.process.wait()


def available() -> float:
    """Free memory in GiB, infinite where the system does not say."""
    meminfo = Path("/proc/meminfo")
    lines = meminfo.read_text().splitlines() if meminfo.exists() else []
    return next((int(line.split()[1]) / 2**20 for line in lines if line.startswith("MemAvailable")), float("inf"))


def measure(row: Row, size: dict, device: str, rounds: int) -> list[list[dict]]:
    """For each round what the two sides took. Raises Failed."""
    sides, size = (row.ours, row.other), size | row.option
    if device != "cpu" or available() < row.gib:
        return [[alone(side, size, device) for side in sides] for _ in range(rounds)]
    running = []
    try:
        for side in sides:
            running.append(Side(side, size, device))
        return [[side.step() for side in running] for _ in range(rounds)]
    finally:
        for side in running:
            side.end()


def alone(side: str, size: dict, device: str) -> dict:
    """One step of one side in a process that ends after it."""
    running = Side(side, size, device)
    try:
        return running.step()
    finally:
        running.end()


def summary(rounds: list[list[dict]], clock: str) -> dict:
    """Medians of the two sides' seconds and peaks, and of the paired ratios of both."""
    ours, other = zip(*rounds)
    result = {"ours": median(side[clock] for side in ours), "other": median(side[clock] for side in other)}
    ratios = [a[clock] / b[clock] for a, b in rounds]
    result |= {"ratio": median(ratios), "least": min(ratios), "most": max(ratios), "rounds": len(rounds)}
    result |= {"peak": median(side["peak"] for side in ours), "other_peak": median(side["peak"] for side in other)}
    return result | {"memory": median(a["peak"] / b["peak"] for a, b in rounds)}

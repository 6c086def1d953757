"""The sides of a row in turn, A B A B ..., each in its own process; the medians of what each took and of the ratios.

So a machine that is busy for a while slows both sides of a pair alike. Where memory has no room for both, a process
ends before the other starts, and starts anew in each round.
"""

import json
import shlex
import subprocess
import sys
import tempfile
from pathlib import Path
from statistics import median

from bench.rows import Row
from bench.timing.child import ROOT, Failed, failure, run


class Side:
    """The process of one side."""

    def __init__(self, side: str, size: dict, device: str):
        self.side, self.process = side, None
        if side.startswith("-"):
            return
        words = [sys.executable, "-m", "bench.timing.worker", side, json.dumps(size), device]
        self.errors = tempfile.TemporaryFile("w+")
        pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": self.errors}
        self.process = subprocess.Popen(words, cwd=ROOT, text=True, **pipes)
        self.answer()

    def answer(self) -> str:
        """The next line that the process prints. Raises Failed, with its last words, if there is none."""
        line = self.process.stdout.readline()
        if not line:
            self.errors.seek(0)
            raise Failed(failure(self.side, self.process.wait(), self.errors.read()))
        return line

    def step(self) -> dict:
        """wall, cpu and peak of one step, or of the whole process where the side is one."""
        if self.process is None:
            return run(shlex.split(self.side))
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
    """For each round what each side took. Raises Failed."""
    sides, size = [side for side in (row.ours, row.other) if side], size | row.option
    if len(sides) > 1 and (device != "cpu" or available() < row.gib):
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
    """Medians of seconds and peaks: of ours, and where there is another side, of it and of the paired ratios."""
    ours, *others = zip(*rounds)
    result = {"ours": median(side[clock] for side in ours), "peak": median(side["peak"] for side in ours)}
    result |= {"rounds": len(rounds)}
    for other in others:
        ratios = [a[clock] / b[clock] for a, b in zip(ours, other)]
        result |= {"ratio": median(ratios), "least": min(ratios), "most": max(ratios)}
        result |= {"other": median(side[clock] for side in other), "other_peak": median(side["peak"] for side in other)}
        result |= {"memory": median(a["peak"] / b["peak"] for a, b in zip(ours, other))}
    return result

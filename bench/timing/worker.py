"""One side of a row in a process of its own: python -m bench.timing.worker SIDE SIZE DEVICE, then "go" a line on stdin.

Each "go" is one step; the answer is a line of JSON: seconds by the wall (on a GPU by CUDA events), seconds of this
process's processor time, and the peak of memory in GiB during the step, weights included.
"""

import json
import sys
import time
from collections.abc import Callable
from importlib import import_module
from pathlib import Path

STATUS, CLEAR = Path("/proc/self/status"), Path("/proc/self/clear_refs")


def reset_peak(device: str) -> None:
    """Forget the peak so far, where the system can."""
    if device != "cpu":
        import torch

        torch.cuda.reset_peak_memory_stats()
    elif CLEAR.exists():
        CLEAR.write_text("5")


def peak(device: str) -> float:
    """The most memory held since then, in GiB: torch's on a GPU, else the resident set, mapped pages included."""
    if device != "cpu" or not STATUS.exists():
        import torch

        from ops.device import peak_gib

        return peak_gib(torch.device(device))
    line = next(line for line in STATUS.read_text().splitlines() if line.startswith("VmHWM"))
    return int(line.split()[1]) / 2**20


def timed(step: Callable, device: str) -> dict:
    """One step, measured."""
    reset_peak(device)
    if device != "cpu":
        import torch

        begin, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
        begin.record()
    cpu, wall = time.process_time(), time.perf_counter()
    own = step()  # a step that knows its own seconds returns them
    result = {"wall": time.perf_counter() - wall, "cpu": time.process_time() - cpu}
    if device != "cpu":
        end.record()
        torch.cuda.synchronize()
        result["wall"] = begin.elapsed_time(end) / 1000
    return result | {"peak": peak(device)} | (own if isinstance(own, dict) else {})


def main(side: str, size: str, device: str) -> None:
    """Build the side, take one step to warm up where the row wants it, then a step for each line that comes."""
    answers, sys.stdout = sys.stdout, sys.stderr  # what a step prints is no answer
    file, name = side.split(":")
    size = json.loads(size)
    step = getattr(import_module(f"bench.sides.{file}"), name)(size, device)
    if size.get("warm", True):
        timed(step, device)
    print("ready", file=answers, flush=True)
    for _ in sys.stdin:
        print(json.dumps(timed(step, device)), file=answers, flush=True)


if __name__ == "__main__":
    main(*sys.argv[1:])

"""Wrong inputs are refused in a sentence or read, and nothing else happens: python -m tests.long.fuzz --count 10000.

Each target (tests/long/targets.py) reads `count` inputs that are almost right, in a process of its own. A refusal is a
ValueError that the package itself raises, or an OSError; of a file it says which. Anything else is a fault: another
exception, a dead process, a read of more than SECONDS of the processor, or one whose memory exceeds 1.2 times the file
plus 200 MB.
Every input is a function of (seed, target, number). Linux alone: /proc, fork.
"""

import argparse
import contextlib
import json
import linecache
import math
import mmap
import os
import random
import resource
import shutil
import signal
import struct
import sys
import tempfile
import time
import traceback
import warnings
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import torch

from tests.long.memory import peak, resident, status
from tests.long.summary import write_summary
from tests.long.targets import COSTLY, Target, targets

ROOT = Path(__file__).parents[2]
SECONDS = 20  # of the processor, of one read
SPACE = 8 << 30  # bytes of address space beyond what a process begins with: the machine outlives a fault
MEMORY, SHARE = 200_000_000, 1.2
OUTCOMES = ("read", "refused", "fault")
SHOWN = 5  # faults of a target that are written down


class Hang(BaseException):
    """A read that does not end."""


def read_one(target: Target, path: Path) -> tuple[str, str]:
    """("read" or "refused" or "fault", the sentence or the fault)."""
    before = resident()
    try:
        target.read(path)
        outcome = "read", ""
    except OSError as error:
        outcome = ("refused", str(error)) if error.strerror or str(error) else ("fault", repr(error))
    except ValueError as error:
        outcome = ("refused", str(error)) if meant(error, target, path) else ("fault", told(error))
    except BaseException as error:
        outcome = "fault", told(error)
    size = sum(file.stat().st_size for file in ([path] if path.is_file() else path.rglob("*")) if file.is_file())
    taken = peak() - before
    if taken > SHARE * size + MEMORY:
        outcome = "fault", f"{taken / 1e6:.0f} MB of memory for {size:,} bytes, {outcome}"
    return outcome


def meant(error: ValueError, target: Target, path: Path) -> bool:
    """Whether the package itself raised it, in words, and of a file with its name."""
    *_, last = traceback.walk_tb(error.__traceback__)
    file, line = last[0].f_code.co_filename, linecache.getline(last[0].f_code.co_filename, last[1])
    own = Path(file).is_relative_to(ROOT) and line.strip().startswith("raise ")
    text = str(error)
    return own and len(text.split()) > 2 and (not target.named or path.name in text)


def told(error: BaseException) -> str:
    """The exception, and the last places of the package that it came through."""
    places = [
        f"{Path(frame.f_code.co_filename).relative_to(ROOT)}:{line}"
        for frame, line in traceback.walk_tb(error.__traceback__)
        if Path(frame.f_code.co_filename).is_relative_to(ROOT)
    ]
    return f"{type(error).__name__}: {str(error)[:300]} ({' > '.join(places[-4:])})"


def hang(*_: object) -> None:
    raise Hang(f"after {SECONDS} s")


def read_many(
    name: str, target: Target, folder: Path, numbers: range, until: float, seed: int, place: mmap.mmap
) -> dict:
    """The faults of these inputs, and the slowest. `place` holds the input that is being read, and the counts."""
    counts, faults, slowest = Counter(), [], 0.0
    signal.signal(signal.SIGPROF, hang)
    path = folder / f"input{target.suffix}"
    for number in numbers:
        if time.monotonic() > until:
            break
        place[:] = struct.pack("<4q", number, *(counts[outcome] for outcome in OUTCOMES))
        target.write(path, random.Random(f"{seed}/{name}/{number}"))
        began = time.monotonic()
        signal.setitimer(signal.ITIMER_PROF, SECONDS)
        try:
            outcome, words = read_one(target, path)
        except Hang:
            outcome, words = "fault", "hangs"
        signal.setitimer(signal.ITIMER_PROF, 0)
        slowest = max(slowest, time.monotonic() - began)
        counts[outcome] += 1
        if outcome == "fault":
            faults.append(f"{number}: {words}")
    place[8:] = struct.pack("<3q", *(counts[outcome] for outcome in OUTCOMES))
    return {"faults": faults, "slowest": slowest}


def in_a_process(name: str, target: Target, folder: Path, numbers: range, until: float, seed: int) -> dict:
    """`read_many` in a fork; the input that kills it is a fault, and the next process goes on after it."""
    found, place = {"outcomes": Counter(), "faults": [], "slowest": 0.0}, mmap.mmap(-1, 32)
    while numbers:
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(parents=True)
        place[:] = struct.pack("<4q", numbers.start, 0, 0, 0)
        answer, told = folder.with_suffix(".json"), folder.with_suffix(".txt")
        answer.unlink(missing_ok=True)
        pid = os.fork()
        if not pid:
            quiet(told)
            try:
                answer.write_text(json.dumps(read_many(name, target, folder, numbers, until, seed, place)))
            except BaseException:
                traceback.print_exc()
            finally:
                os._exit(0)
        ended = watched(pid, place)
        last, *counts = struct.unpack("<4q", place[:])
        found["outcomes"] += Counter(dict(zip(OUTCOMES, counts)))
        if answer.exists():
            part = json.loads(answer.read_text())
            numbers = numbers[:0]
        else:
            found["outcomes"]["fault"] += 1
            part = {"faults": [f"{last}: the process died, {ended}: {said(told)}"]}
            numbers = range(last + 1, numbers.stop)
            if len(found["faults"]) > 20:
                break
        found["faults"] += part["faults"]
        found["slowest"] = max(found["slowest"], part.get("slowest", 0.0))
    return found


def said(told: Path) -> str:
    """The end of what a process printed."""
    return told.read_text(errors="replace")[-600:] if told.exists() else ""


def quiet(path: Path) -> None:
    """What the readers print goes to a file; a fault takes the process, and not the machine."""
    with open(path, "w") as told:
        os.dup2(told.fileno(), 1), os.dup2(told.fileno(), 2)
    warnings.simplefilter("ignore")
    resource.setrlimit(resource.RLIMIT_AS, (status("VmSize") + SPACE,) * 2)
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))


def watched(pid: int, place: mmap.mmap) -> str:
    """How the process ended; it is killed if it does not come to another input for 10 SECONDS."""
    last, since = place[:8], time.monotonic()
    while not (done := os.waitpid(pid, os.WNOHANG))[0]:
        time.sleep(0.01)
        if place[:8] != last:
            last, since = place[:8], time.monotonic()
        if time.monotonic() - since > 10 * SECONDS:
            os.kill(pid, signal.SIGKILL)
            os.waitpid(pid, 0)
            return "it hung"
    return f"status {os.waitstatus_to_exitcode(done[1])}"


def trials(work: Path, given: argparse.Namespace, table: dict[str, dict], written: Callable[[], None]) -> None:
    """All targets that the table does not hold, or those named: a row of the table each, and then `written()`."""
    every = targets(work / "made")
    if unknown := [name for name in given.only if name not in every]:
        raise ValueError(f"no target {unknown[0]!r}; there are {', '.join(every)}")
    for name, target in every.items():
        if name in table or given.only and name not in given.only:
            continue
        began, before = time.monotonic(), resource.getrusage(resource.RUSAGE_CHILDREN).ru_utime
        numbers = range(inputs(name, given))
        found = in_a_process(name, target, work / "inputs", numbers, began + given.seconds, given.seed)
        spent, faults = resource.getrusage(resource.RUSAGE_CHILDREN).ru_utime - before, found["faults"]
        times = {"slowest": round(found["slowest"], 2), "of the processor": round(spent, 1)}
        table[name] = dict(found["outcomes"]) | {"seconds": times}
        if faults:
            table[name] |= {"first faults": faults[:SHOWN]}
        print(f"{name}: {dict(found['outcomes'])}, {spent:.1f} s", *faults[:SHOWN], sep="\n    ", flush=True)
        written()


def whole(row: dict, name: str, given: argparse.Namespace) -> bool:
    """Whether a row of an earlier call has all inputs of its target, and no fault."""
    return row.get("read", 0) + row.get("refused", 0) >= inputs(name, given)


def inputs(name: str, given: argparse.Namespace) -> int:
    """How many inputs a target is given."""
    return (given.costly or given.count) if name in COSTLY else given.count


def summed(table: dict[str, dict]) -> dict:
    """The table with its sums."""
    return {
        "targets": len(table),
        "inputs": sum(sum(row.get(outcome, 0) for outcome in OUTCOMES) for row in table.values()),
        "faults": sum(row.get("fault", 0) for row in table.values()),
        "by target": table,
    }


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(prog="python -m tests.long.fuzz", description=__doc__.partition("\n")[0])
    parser.add_argument("--count", type=int, default=10_000, help="inputs of each target")
    parser.add_argument("--costly", type=int, help="inputs of each target that takes long, by default as many")
    parser.add_argument("--seconds", type=float, default=math.inf, help="a target, after which it reads no more")
    parser.add_argument("--seed", type=int, default=0, help="of the inputs")
    parser.add_argument("--only", action="append", default=[], help="a target; repeat")
    parser.add_argument(
        "--out", help="JSON file for the summary; targets of which it holds all, without a fault, are not read again"
    )
    given = parser.parse_args(arguments)
    torch.set_num_threads(1)
    command = f"python -m tests.long.fuzz --count {given.count} --seconds {given.seconds:g} --seed {given.seed}"
    before = json.loads(Path(given.out).read_text()) if given.out and Path(given.out).exists() else {}
    before = before if before.get("command") == command else {}
    table = {name: row for name, row in before.get("by target", {}).items() if whole(row, name, given)}
    began, out = time.monotonic() - before.get("seconds", 0), given.out and Path(given.out).resolve()
    with tempfile.TemporaryDirectory() as work, contextlib.chdir(work):
        trials(
            Path(work).resolve(), given, table, lambda: write_summary(out, command, began, summed(table), quiet=True)
        )
    write_summary(out, command, began, summed(table))
    sys.exit(bool(summed(table)["faults"]))


if __name__ == "__main__":
    main()

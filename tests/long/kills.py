"""Runs that are killed at any moment, and resumed, end as if left alone: python -m tests.long.kills --count 1000.

Each run is train.py in a fork of one warm process. It dies by SIGKILL at a random moment, or kills itself inside a
write: after a part of the bytes of the log, of the state, of a file that the run leaves; before or after a file is
moved, linked, removed or flushed. Meanwhile a second process may try to enter the folder. Then the run is resumed, and
killed again, until it ends; every file of it must be that of a run that nobody disturbed, and every line of its log,
but for the seconds. Linux alone: /proc, fork.
"""

import argparse
import builtins
import contextlib
import io
import json
import math
import os
import random
import re
import shutil
import signal
import sys
import tempfile
import time
import traceback
from collections import Counter
from pathlib import Path

import torch

import train
from tests.long.summary import write_summary
from tests.long.variants import TUNED, VARIANTS, flags, write_inputs

KILLS = 12  # of one run at most
AIMS = ("a random moment", "log", "state", "last files", "other files")
REFUSALS = "another process is training|holds a run already|--resume needs --out|not a run folder"
MOVES = ("replace", "link", "unlink", "fsync", "rmdir", "mkdir")


def kind_of(path: str) -> str:
    """Which of the run's files this is, or its temporary."""
    if "log.jsonl" in path:
        return "log"
    if "/checkpoint" in path:
        return "state"
    return "other files" if re.search(r"config\.toml|/samples|/cache|\.lock|\.probe", path) else "last files"


class Writes:
    """Counts what a process writes below a folder, by kind of file, and kills it inside one of these writes."""

    def __init__(self, folder: Path, aim: str = "", number: int = -1, part: float = 0.0):
        """The process dies in write `number` of the kind `aim`, with this part of it done."""
        self.folder, self.aim, self.number, self.part, self.seen = folder, aim, number, part, Counter()

    def due(self, path: object) -> bool:
        """Whether this is the write to die in."""
        path = os.readlink(f"/proc/self/fd/{path}") if isinstance(path, int) else os.path.abspath(os.fspath(path))
        if not path.startswith(str(self.folder)):
            return False
        kind = kind_of(path)
        self.seen[kind] += 1
        return kind == self.aim and self.seen[kind] == self.number + 1

    def install(self) -> None:
        """From now on every file that is opened for writing, and every move of one, is seen. For good."""
        opened, fdopen = builtins.open, os.fdopen

        def watched_open(file: object, mode: str = "r", *rest: object, **more: object) -> object:
            stream = opened(file, mode, *rest, **more)
            return Torn(stream, file, self) if set(mode) & set("wax+") and not isinstance(file, int) else stream

        def watched_fdopen(handle: int, mode: str = "r", *rest: object, **more: object) -> object:
            return Torn(fdopen(handle, mode, *rest, **more), handle, self)

        builtins.open = io.open = watched_open
        os.fdopen = watched_fdopen
        for name in MOVES:
            setattr(os, name, self.moving(getattr(os, name)))

    def moving(self, call: object) -> object:
        def moved(path: object, *rest: object, **more: object) -> object:
            now = "dir_fd" not in more and self.due(path)
            if now and self.part < 0.5:
                die()
            result = call(path, *rest, **more)
            if now:
                die()
            return result

        return moved


class Torn:
    """A file whose write may stop in the middle, with the process."""

    def __init__(self, file: object, path: object, writes: Writes):
        self.file, self.path, self.writes = file, path, writes

    def write(self, data: object) -> int:
        if self.writes.due(self.path):
            part = data if isinstance(data, str) else memoryview(data).cast("B")
            self.file.write(part[: int(len(part) * self.writes.part)])
            self.file.flush()
            die()
        return self.file.write(data)

    def __getattr__(self, name: str) -> object:
        return getattr(self.file, name)

    def __enter__(self) -> "Torn":
        return self

    def __exit__(self, *_: object) -> None:
        self.file.close()

    def __iter__(self) -> object:
        return iter(self.file)


def die() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def warm() -> None:
    """Load once what a run loads late, half of its seconds; nothing with threads, which do not live on in forks."""
    torch.set_num_threads(1)
    torch.optim.AdamW([torch.nn.Parameter(torch.zeros(1))])
    with contextlib.suppress(ImportError):
        from matplotlib.figure import Figure

        Figure().subplots().figure.savefig(io.BytesIO())


def start(argv: list[str], writes: Writes, output: str = "told.txt") -> int:
    """train.py with these flags in the folder of the writes, in a fork; its process id.

    What it prints, and at last how often it wrote, goes to the file `output` there.
    """
    if pid := os.fork():
        return pid
    status = 1
    try:
        os.chdir(writes.folder)
        with open(output, "w") as told:
            os.dup2(told.fileno(), 1), os.dup2(told.fileno(), 2)
        writes.install()
        train.main(argv)
        status = 0
    except SystemExit as error:
        status = error.code if isinstance(error.code, int) else print(error.code, file=sys.stderr) or 1
    except ValueError as error:
        print(f"error: {error}", file=sys.stderr)
    except BaseException:
        traceback.print_exc()
    finally:
        sys.stdout.flush(), sys.stderr.flush()
        os.write(2, f"\nwrites: {json.dumps(writes.seen)}\n".encode())
        os._exit(status)


def wait(pid: int) -> int:
    """The exit status of a process, below 0 for the signal that killed it."""
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])


class Unbroken:
    """A run that nobody disturbs: its files, its seconds, and how often it writes to each kind of file."""

    def __init__(self, line: str, made: Path, folder: Path):
        self.line, self.made, began = line, made, time.monotonic()
        folder.mkdir(exist_ok=True)
        if wait(start(flags(line, made), Writes(folder))):
            raise RuntimeError(f"{line} fails:\n{(folder / 'told.txt').read_text()}")
        self.seconds = time.monotonic() - began
        self.writes = json.loads((folder / "told.txt").read_text().rpartition("writes: ")[2])
        self.files = files(folder)


def files(folder: Path) -> dict[str, object]:
    """Path -> content of all files of a run: bytes, and for the log and the settings what does not name the moment."""
    found = {}
    for path in [*folder.glob("run/**/*"), *folder.glob("cache/**/*")]:
        if path.is_file():
            content = path.read_bytes()
            if path.name == "log.jsonl":
                lines = [json.loads(line) for line in content.splitlines()]
                content = [{k: v for k, v in line.items() if k not in ("seconds", "peak_gib")} for line in lines]
            elif path.suffix in (".toml", ".html"):
                content = content.replace(str(folder).encode(), b"")
            found[str(path.relative_to(folder))] = content
    return found


class Trial:
    """One run that is killed up to KILLS times while it goes on, and what became of it."""

    def __init__(self, unbroken: Unbroken, folder: Path, chance: random.Random):
        self.unbroken, self.folder, self.chance = unbroken, folder, chance
        self.kills, self.second, self.faults, self.history = Counter(), Counter(), [], []

    def argv(self, resume: bool | None = None) -> list[str]:
        """The flags that begin the run, or go on with it once it has settings."""
        resume = (self.folder / "run" / "config.toml").exists() if resume is None else resume
        return ["--resume", "--out", "run"] if resume else flags(self.unbroken.line, self.unbroken.made)

    def once(self, aim: str) -> bool:
        """One process that is to be killed; whether it ended before."""
        chance, seen = self.chance, self.unbroken.writes
        share = 0.5 if self.kills else 1.0  # of an unbroken run: a resumed one has less before it
        number = chance.randrange(math.ceil(share * seen[aim])) if aim in seen else -1
        moment = chance.uniform(0, 1.05 * share * self.unbroken.seconds) if number < 0 else 60.0
        self.history.append((aim, number, round(moment, 3)))
        began, second = time.monotonic(), 0
        pid = start(self.argv(), Writes(self.folder, aim, number, chance.random()))
        if chance.random() < 0.25:
            time.sleep(chance.uniform(0, 0.8 * self.unbroken.seconds))
            second = start(self.argv(chance.random() < 0.7), Writes(self.folder), "second.txt")
        while not (done := os.waitpid(pid, os.WNOHANG))[0] and time.monotonic() - began < moment:
            time.sleep(0.002)
        if not done[0]:
            os.kill(pid, signal.SIGKILL)
            done = os.waitpid(pid, 0)
        status = os.waitstatus_to_exitcode(done[1])
        if status == -signal.SIGKILL:
            self.kills[aim] += 1
        elif status:
            self.refused("told.txt", "" if not second else REFUSALS)
        if second:
            self.follow(second)
        return status == 0

    def follow(self, second: int) -> None:
        """The end of the second process: killed too, refused, or it went on with the run after the first had died."""
        if self.chance.random() < 0.3:
            with contextlib.suppress(ProcessLookupError):
                os.kill(second, signal.SIGKILL)
        status = wait(second)
        if status == -signal.SIGKILL:
            self.second["killed"] += 1
        elif status:
            self.refused("second.txt", REFUSALS)
            self.second["refused"] += 1
        else:
            self.second["went on"] += 1

    def refused(self, name: str, allowed: str) -> None:
        """A fault, unless what a process said last is one of the allowed sentences."""
        told = (self.folder / name).read_text().rpartition("\nwrites: ")[0].strip()
        if not allowed or not re.search(allowed, told.splitlines()[-1]):
            self.faults.append(told[-2000:])

    def go(self) -> None:
        """Kill, resume, kill ... resume; compare."""
        self.folder.mkdir()
        for _ in range(self.chance.randint(1, KILLS)):
            if self.once(self.chance.choice(AIMS)) or self.faults:
                break
        if not self.faults and wait(start(self.argv(), Writes(self.folder))):
            self.refused("told.txt", "")
        if not self.faults:
            self.faults += differences(self.unbroken.files, files(self.folder))


def differences(expected: dict, found: dict) -> list[str]:
    """What two runs differ in."""
    return [
        f"{name} differs" for name in sorted(expected.keys() | found.keys()) if expected.get(name) != found.get(name)
    ]


def trials(work: Path, count: int, seconds: float, seed: int) -> dict:
    """Kill runs of all variants in turn until `count` processes were killed or the time is over; the summary."""
    made, until = work / "made", time.monotonic() + seconds
    write_inputs(made)
    Unbroken(TUNED, made, made)
    whole = {name: Unbroken(line, made, work / f"whole-{i}") for i, (name, line) in enumerate(VARIANTS.items())}
    by_variant, kills, second, faults, runs = Counter(), Counter(), Counter(), [], 0
    while kills.total() < count and time.monotonic() < until:
        name = [*VARIANTS][runs % len(VARIANTS)]
        trial = Trial(whole[name], work / f"trial-{runs}", random.Random(seed * 1_000_003 + runs))
        trial.go()
        runs += 1
        kills, second = kills + trial.kills, second + trial.second
        by_variant[name] += trial.kills.total()
        if trial.faults:
            faults.append({"variant": name, "trial": runs - 1, "history": trial.history, "faults": trial.faults})
            print(json.dumps(faults[-1], indent=1), flush=True)
        else:
            shutil.rmtree(trial.folder)
        if runs % 8 == 0:
            print(f"{kills.total()} kills of {runs} runs, {len(faults)} with a fault", flush=True)
    return {
        "kills": kills.total(),
        "runs": runs,
        "runs that differ": len(faults),
        "kills by variant": dict(by_variant),
        "kills at": dict(kills),
        "second processes": dict(second),
        "unbroken runs, seconds": {name: round(run.seconds, 2) for name, run in whole.items()},
        "faults": faults,
    }


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(prog="python -m tests.long.kills", description=__doc__.partition("\n")[0])
    parser.add_argument("--count", type=int, default=1000, help="of processes that are killed")
    parser.add_argument("--seconds", type=float, default=math.inf, help="after which no other run begins")
    parser.add_argument("--seed", type=int, default=0, help="of the moments")
    parser.add_argument("--work", help="folder for the runs, kept; empty: a temporary one")
    parser.add_argument("--out", help="JSON file for the summary")
    given = parser.parse_args(arguments)
    warm()
    began = time.monotonic()
    with tempfile.TemporaryDirectory() if not given.work else contextlib.nullcontext(given.work) as work:
        found = trials(Path(work).resolve(), given.count, given.seconds, given.seed)
    command = f"python -m tests.long.kills --count {given.count} --seconds {given.seconds:g} --seed {given.seed}"
    write_summary(given.out, command, began, found)
    sys.exit(bool(found["faults"]))


if __name__ == "__main__":
    main()

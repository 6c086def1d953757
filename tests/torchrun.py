"""torchrun for tests: its agent and its processes are forked from one process that has loaded torch.

A run of two processes would load torch three times, for the agent is a process too. The agent, its signals and its
restarts are torch's own. What is about the start or the end of Python itself starts the command.
"""

import contextlib
import json
import os
import runpy
import signal
import subprocess
import sys
import tempfile
import time
import traceback
import uuid
from functools import cache
from pathlib import Path

ROOT = Path(__file__).parent.parent


class Started:
    """A torchrun that was forked."""

    def __init__(self, pid: int, shown: Path):
        self.pid, self.shown, self.returncode = pid, shown, None

    def poll(self) -> int | None:
        """The exit status, negative for a signal; None as long as it runs."""
        if self.returncode is None:
            self.returncode = ask({"ended": self.pid})
        return self.returncode

    def send_signal(self, number: int) -> None:
        """To the agent, which passes it on; nothing to one that has ended."""
        if self.poll() is None:
            os.kill(self.pid, number)

    def wait(self, timeout: float = 240) -> "Started":
        """Itself, as it has ended. TimeoutError after so many seconds."""
        end = time.monotonic() + timeout
        while self.poll() is None:
            if time.monotonic() > end:
                raise TimeoutError(f"torchrun runs for more than {timeout:.0f} s: {self.stdout}")
            time.sleep(0.02)
        return self

    @property
    def stdout(self) -> str:
        """What the agent and the processes printed so far."""
        return self.shown.read_text()


def torchrun(count: int, *argv: str, wait: bool = True, script: str = "train.py", more=()) -> Started:
    """The script in so many processes, each of one thread. more: flags of torchrun."""
    shown = Path(folder().name) / str(uuid.uuid4())
    job = ["--rdzv-backend", "c10d", "--rdzv-endpoint", "localhost:0", "--rdzv-id", str(uuid.uuid4())]
    words = [*job, "--nproc-per-node", str(count), *more, "--", script, *argv]
    shown.touch()
    started = Started(ask({"words": words, "shown": str(shown), "environment": dict(os.environ)}), shown)
    return started.wait() if wait else started


def ask(order: dict) -> int | None:
    """The answer of the process that forks: a process id, or an exit status. RuntimeError if that process is gone."""
    pipe, line = loaded(), ""
    with contextlib.suppress(BrokenPipeError):
        print(json.dumps(order), file=pipe.stdin, flush=True)
        line = pipe.stdout.readline()
    if not line:
        loaded.cache_clear()
        raise RuntimeError(f"the process that forks torchrun ended with status {pipe.wait()}")
    return json.loads(line)


@cache
def folder() -> tempfile.TemporaryDirectory:
    """Of what is printed, for as long as the tests run."""
    return tempfile.TemporaryDirectory()


@cache
def loaded() -> subprocess.Popen:
    """The process that has loaded torch; it ends with the tests, whose end it reads from."""
    how = {"cwd": ROOT, "stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
    return subprocess.Popen([sys.executable, "-m", "tests.torchrun"], env=os.environ | {"OMP_NUM_THREADS": "1"}, **how)


def main() -> None:
    """Orders from standard input, a line each: fork the agent of a torchrun, or tell whether one has ended."""
    import torch.distributed.run  # what a test process does not need, and must not pay for

    import sample
    import train

    assert train and sample and torch
    running = set()
    for line in sys.stdin:
        order = json.loads(line)
        if "ended" in order:
            pid, status = os.waitpid(order["ended"], os.WNOHANG)
            running.discard(pid)
            answer = os.waitstatus_to_exitcode(status) if pid else None
        elif answer := os.fork():
            running.add(answer)
        else:
            agent(order)
        print(json.dumps(answer), flush=True)
    for pid in running:  # the tests have ended, and nobody waits for them
        os.kill(pid, signal.SIGTERM)


def agent(order: dict) -> None:
    """In the forked process, which ends here: torchrun, whose processes are forked from it."""
    from torch.distributed.launcher.api import elastic_launch
    from torch.distributed.run import config_from_args, parse_args

    code = 1
    try:
        out = os.open(order["shown"], os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
        for number in (1, 2):
            os.dup2(out, number)
        os.environ.clear()
        os.environ.update(order["environment"] | {"OMP_NUM_THREADS": "1", "TORCHELASTIC_ENABLE_FILE_TIMER": "0"})
        arguments = parse_args(order["words"])
        config = config_from_args(arguments)[0]
        config.start_method = "fork"
        elastic_launch(config, run_script)(arguments.training_script, arguments.training_script_args)
        code = 0
    except BaseException:
        traceback.print_exc()
    finally:
        sys.stdout.flush()
        os._exit(code)


def run_script(script: str, argv: list[str]) -> None:
    """In a process of the group."""
    sys.argv = [script, *argv]
    runpy.run_path(script, run_name="__main__")


if __name__ == "__main__":
    main()

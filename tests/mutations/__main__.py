"""Does a test notice? python -m tests.mutations [WORD]... [--out FILE.json]

Changes one line of the code at a time in a copy of the tree, runs the tests that ought to notice, and prints which did.
The changes are the rows of protections.txt (each takes one promise out) and equations.txt (each makes the mathematics
wrong); WORD picks those that hold it. A change that no test notices is a survivor, and the exit status is 1.

    == FILE  TEST...       the rows below change FILE; these tests run, in this order, up to the first failure
    == + TEST...           for the next row, these instead
    : words                what the next row takes out
    ~ words                why the next row changes nothing that anybody could see; it is not run
    - old                  the text, which must stand exactly once in the file; several lines are one text
    + new                  what stands there instead

One process imports torch and pytest and forks for every change, so that a change costs little more than its tests.
"""

import argparse
import compileall
import contextlib
import datetime
import hashlib
import json
import os
import platform
import py_compile
import select
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).parents[2]
TABLES = ("protections.txt", "equations.txt")
IMPORT = " (import)"  # behind the name of a file of tests that cannot be read
LIMIT = 300  # seconds for the tests of one change; a change that makes them hang is noticed


class Mutation(NamedTuple):
    """One row."""

    table: str
    line: int
    file: str
    tests: tuple[str, ...]
    old: str
    new: str
    words: str
    equivalent: str

    @property
    def name(self) -> str:
        """What a reader sees of it."""
        return f"{self.file}: {self.words or f'{short(self.old)} -> {short(self.new)}'}"

    @property
    def key(self) -> str:
        """What it is known by in a journal: a row that was changed is another."""
        return hashlib.sha256("\0".join((self.file, self.old, self.new)).encode()).hexdigest()[:16]


def short(text: str) -> str:
    """The text on one line, bounded."""
    line = " ".join(text.split()) or "nothing"
    return line if len(line) <= 60 else line[:57] + "..."


def read_rows(table: str) -> list[Mutation]:
    """The rows of a table. ValueError, with the line, for one that is none."""
    rows, file, usual, tests, said, old, new = [], "", (), (), {":": "", "~": ""}, [], []
    lines = (Path(__file__).parent / table).read_text(encoding="utf-8").splitlines()
    for number, line in enumerate([*lines, ""], 1):
        if new and not line.startswith("+"):
            row = Mutation(table, number - 1, file, tests, "\n".join(old), "\n".join(new), said[":"], said["~"])
            rows.append(row)
            tests, said, old, new = usual, {":": "", "~": ""}, [], []
        if line.startswith("== + "):
            tests = tuple(line.split()[2:])
        elif line.startswith("== "):
            file, *rest = line.split()[1:]
            usual = tests = tuple(rest)
        elif line[:1] in said:
            said[line[0]] = line[1:].strip()
        elif line.startswith(("- ", "-")) and line[1:2] in ("", " "):
            old.append(line[2:])
        elif line.startswith("+") and line[1:2] in ("", " ") and old:
            new.append(line[2:])
        elif line and not line.startswith("#"):
            raise ValueError(f"{table}, line {number}: no part of a row: {line}")
    return rows


def fault(row: Mutation, root: Path = ROOT) -> str:
    """Why a row cannot be run, "" for one that can."""
    path = root / row.file
    if not path.is_file():
        return f"{row.table}, line {row.line}: no file {row.file}"
    count = path.read_text(encoding="utf-8").count(row.old)
    if count != 1:
        return f"{row.table}, line {row.line}: {short(row.old)!r} stands {count} times in {row.file}, not once"
    missing = [test for test in row.tests if not (root / test.partition("::")[0]).exists()]
    if missing or not row.tests:
        return f"{row.table}, line {row.line}: no test {', '.join(missing)}"
    return "" if row.old != row.new else f"{row.table}, line {row.line}: the new text is the old one"


class Reporter:
    """A pytest plugin that writes a line as each test begins, and one with the first that fails."""

    def __init__(self, to: int) -> None:
        self.to, self.failed, self.passed = to, "", 0

    def say(self, **what: str | int) -> None:
        """A line of JSON, written at once: the process may not live to the next."""
        os.write(self.to, json.dumps(what).encode() + b"\n")

    def pytest_runtest_logstart(self, nodeid: str) -> None:
        self.say(began=nodeid)

    def pytest_collectreport(self, report: object) -> None:
        if report.failed:
            self.failed = self.failed or f"{report.nodeid}{IMPORT}"

    def pytest_runtest_logreport(self, report: object) -> None:
        self.passed += report.when == "call" and report.passed
        if report.failed:
            self.failed = self.failed or report.nodeid


def first_failure(tree: Path, tests: tuple[str, ...]) -> tuple[str, int]:
    """(the first test that fails in the tree, "" for none; how many passed), in a forked process.

    A test in which the process dies, or that does not end in time, fails too.
    """
    here, there = os.pipe()
    child = os.fork()
    if child == 0:
        try:
            os.setsid()
            run_here(tree, tests, there)
        finally:
            os._exit(1)
    os.close(there)
    lines, ends = b"", time.monotonic() + LIMIT
    while select.select([here], [], [], max(0.0, ends - time.monotonic()))[0]:
        block = os.read(here, 65536)
        lines += block
        if not block or b'"failed"' in block:
            break
    with contextlib.suppress(ProcessLookupError):
        os.killpg(child, signal.SIGKILL)  # and what its tests have started
    os.waitpid(child, 0)
    os.close(here)
    last = [json.loads(line) for line in lines.splitlines()][-1:] or [{"began": tests[0]}]
    return last[0].get("failed", last[0].get("began", "")), last[0].get("passed", 0)


def run_here(tree: Path, tests: tuple[str, ...], answer: int) -> None:
    """Run the tests in this process, and write what came out."""
    import pytest

    sys.dont_write_bytecode = True  # a file that is changed and changed back within a second would leave a stale one
    os.environ |= {"PYTHONDONTWRITEBYTECODE": "1", "OMP_NUM_THREADS": "1"}
    silent = os.open(os.devnull, os.O_WRONLY)
    os.dup2(silent, 1)
    os.dup2(silent, 2)
    os.chdir(tree)
    sys.path[:] = [str(tree), *(place for place in sys.path if place not in ("", str(ROOT)))]
    reporter = Reporter(answer)
    options = ["-x", "-n", "0", "-p", "no:cacheprovider", "--basetemp", f"{tree}-pytest"]
    code = pytest.main([*options, *tests], plugins=[reporter])
    failed = reporter.failed or ("" if code == 0 else f"pytest, which ended with {int(code)}")
    reporter.say(failed=failed, passed=reporter.passed)


def copied(root: Path, tree: Path) -> None:
    """The files that git knows or does not ignore, without those of runs, their byte code checked by content."""
    listed = subprocess.run(
        ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"],
        cwd=root,
        capture_output=True,
        check=True,
    )
    for name in filter(None, listed.stdout.decode().split("\0")):
        if (root / name).is_file():
            (tree / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(root / name, tree / name)
    subprocess.run(["git", "init", "-q", str(tree)], check=True)  # some tests ask git for the files
    subprocess.run(["git", "-C", str(tree), "add", "-A"], check=True)
    compileall.compile_dir(str(tree), quiet=2, invalidation_mode=py_compile.PycInvalidationMode.CHECKED_HASH)


def main(argv: list[str] | None = None) -> int:
    """Every row in turn; 0 if each was noticed."""
    parser = argparse.ArgumentParser(prog="python -m tests.mutations", description=__doc__.partition("\n")[0])
    parser.add_argument("word", nargs="*", help="run the rows whose file, words or text hold one of these")
    parser.add_argument("--out", help="FILE.json for the sums; what FILE.jsonl beside it holds is not run again")
    given = parser.parse_args(argv)
    rows = [row for table in TABLES for row in read_rows(table)]
    rows = [row for row in rows if not given.word or any(word in f"{row.name} {row.old}" for word in given.word)]
    if faults := list(filter(None, map(fault, rows))):
        sys.exit("\n".join(faults))
    import einops  # noqa: F401, so that the forked processes find them imported
    import numpy  # noqa: F401
    import PIL.Image  # noqa: F401
    import pytest  # noqa: F401
    import safetensors.torch  # noqa: F401
    import scipy.linalg  # noqa: F401
    import torch
    import tqdm  # noqa: F401

    torch.set_num_threads(1)
    journal = Path(given.out).with_suffix(".jsonl") if given.out else None
    with tempfile.TemporaryDirectory(prefix="mutations-") as folder:
        tree = Path(folder) / "tree"
        tree.mkdir()
        copied(ROOT, tree)
        tests = noticed_before(journal)
        for row in rows:
            if row.key not in tests and not row.equivalent and (test := one(tree, row)):
                tests[row.key] = test
                if journal:
                    with open(journal, "a", encoding="utf-8") as file:
                        file.write(json.dumps([row.key, test]) + "\n")
        noticed = {row: tests[row.key] for row in rows if row.key in tests}
        if broken := failing(tree, set(noticed.values())):
            sys.exit(f"these tests fail without a change too, so they noticed nothing: {', '.join(broken)}")
    summary = sums(rows, noticed)
    print(json.dumps(summary, indent=2))
    if given.out:
        Path(given.out).write_text(json.dumps(summary, indent=2) + "\n", encoding="utf-8")
    return 1 if summary["survivors"] else 0


def noticed_before(journal: Path | None) -> dict[str, str]:
    """{key of a row: the test that noticed} of earlier calls with the same --out."""
    lines = journal.read_text(encoding="utf-8").splitlines() if journal and journal.exists() else []
    return dict(map(json.loads, lines))


def sums(rows: list[Mutation], noticed: dict[Mutation, str]) -> dict:
    """What the rows came to."""
    run = [row for row in rows if not row.equivalent]
    return {
        "date": datetime.date.today().isoformat(),
        "machine": f"{os.cpu_count()} cores of {processor()}",
        "changes": len(run),
        "of protections": sum(row.table == "protections.txt" for row in run),
        "of equations": sum(row.table == "equations.txt" for row in run),
        "noticed": len(noticed),
        "by tests": len({test.partition("[")[0] for test in noticed.values()}),
        "survivors": [row.name for row in run if row not in noticed],
        "equivalent": {row.name: row.equivalent for row in rows if row.equivalent},
    }


def one(tree: Path, row: Mutation) -> str:
    """The test that notices the change of this row, "" for none; printed with the seconds that it took."""
    path, began = tree / row.file, time.monotonic()
    before = path.read_text(encoding="utf-8")
    path.write_text(before.replace(row.old, row.new), encoding="utf-8")
    try:
        test, passed = first_failure(tree, row.tests)
    finally:
        path.write_text(before, encoding="utf-8")
    print(f"{'noticed' if test else 'NOT NOTICED':11} {time.monotonic() - began:6.1f} s  {row.name}", flush=True)
    print(f"{'':22}{test or f'{passed} tests of {chr(32).join(row.tests)} pass'}", flush=True)
    return test


def failing(tree: Path, tests: set[str]) -> list[str]:
    """Those of the tests that fail in the tree without a change, the first of each file."""
    files = {}
    for test in sorted(tests):
        files.setdefault(test.partition("::")[0].removesuffix(IMPORT), []).append(test.removesuffix(IMPORT))
    return [broken for chosen in files.values() if (broken := first_failure(tree, tuple(chosen))[0])]


def processor() -> str:
    """The processor's name."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor() or platform.machine()
    return next((line.partition(": ")[2] for line in lines if line.startswith("model name")), platform.machine())


if __name__ == "__main__":
    sys.exit(main())

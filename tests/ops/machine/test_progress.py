"""Progress in a file: lines without carriage returns, and none for what is done at once."""

import io
import sys

from ops.machine import progress as module
from ops.machine.progress import Lines, progress


def test_in_a_file_there_are_lines(monkeypatch):
    out = io.StringIO()
    monkeypatch.setattr(sys, "stderr", out)
    monkeypatch.setattr(module, "SECONDS", 0)
    with progress(total=3, desc="run") as bar:
        for step in range(3):
            bar.set_postfix_str(f"loss {step}", refresh=False)
            bar.update()
    lines = out.getvalue().splitlines()
    assert "\r" not in out.getvalue() and lines[-1].startswith("run: 3/3, ") and lines[-1].endswith("loss 2")


def test_what_is_done_at_once_prints_nothing(monkeypatch):
    out = io.StringIO()
    monkeypatch.setattr(sys, "stderr", out)
    assert list(progress(range(5), desc="x")) == list(range(5)) and out.getvalue() == ""


def test_a_state_that_stays_is_one_line():
    out = io.StringIO()
    lines = Lines(out)
    for text in ("\ra: 1", "\ra: 1 ", "\n", "\ra: 2"):
        lines.write(text)
    assert out.getvalue() == "a: 1\na: 2\n"

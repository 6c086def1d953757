"""The long trials, short: a few kills of each kind of run, 500 wrong inputs of each target that is read quickly."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.long.kills import AIMS
from tests.long.variants import VARIANTS

ROOT = Path(__file__).parents[2]
pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="fork and /proc")


def trial(name, tmp_path, *argv):
    """The summary of a trial, which runs in a fresh process: what it forks must have no threads."""
    out = tmp_path / "summary.json"
    done = subprocess.run(
        [sys.executable, "-m", f"tests.long.{name}", *argv, "--out", str(out)],
        cwd=ROOT,
        capture_output=True,
        text=True,
        env=os.environ | {"OMP_NUM_THREADS": "1"},
    )
    assert done.returncode == 0, done.stdout[:5000] + done.stderr[-5000:]  # the faults stand first, the summary last
    return json.loads(out.read_text())


def test_rows_run_in_their_short_form(tmp_path):
    """A few of docs/rows.md; python -m tests.long.rows runs them all."""
    found = trial("rows", tmp_path, "noise of a step", "biases alone", "when to stop", "an image to start")
    assert found["ran"] == 4 and not found["failed"]


def test_killed_runs_of_every_kind_end_as_if_left_alone(tmp_path):
    found = trial("kills", tmp_path, "--count", "16")
    assert found["runs that differ"] == 0 and found["kills"] >= 16
    assert found["kills at"].keys() <= set(AIMS) and found["kills by variant"].keys() <= VARIANTS.keys()


def test_wrong_inputs_are_read_or_refused(tmp_path):
    found = trial("fuzz", tmp_path, "--count", "500", "--costly", "20")
    assert found["faults"] == 0 and all(row["refused"] for name, row in found["by target"].items() if name not in FREE)


FREE = ("prompt", "log.jsonl")  # any text is one, and any damaged line is left out

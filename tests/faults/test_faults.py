"""What goes wrong around a run: each is one sentence, and nothing is left half-written or lost."""

import errno
import os
import random
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import train
from data.output import atomic
from tests.test_train import ROOT, flags


def script(*argv, wait=True):
    process = subprocess.Popen(
        [sys.executable, "train.py", *argv],
        cwd=ROOT,
        text=True,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        env=os.environ | {"OMP_NUM_THREADS": "1"},
    )
    return process, process.communicate(timeout=120)[1] if wait else None


def test_killed_at_a_random_moment_and_resumed_it_ends_as_if_left_alone(tiny, tmp_path):
    """SIGKILL leaves no time to save anything; the moment is anywhere in the run, inside a save too."""
    whole, broken = tmp_path / "whole", tmp_path / "broken"
    more = ["--steps", "100", "--save-every", "1", "--sample-every", "20", "--keep", "best"]
    process, shown = script(*flags(tiny, whole, *more))
    assert process.returncode == 0, shown
    process, _ = script(*flags(tiny, broken, *more), wait=False)
    for _ in range(2):
        deadline = time.monotonic() + 60
        while not (broken / "checkpoint" / "state.safetensors").exists() and time.monotonic() < deadline:
            time.sleep(0.02)
        time.sleep(random.uniform(0, 0.5))
        process.send_signal(signal.SIGKILL)
        process.communicate(timeout=60)
        process, _ = script("--resume", "--out", str(broken), wait=False)
    shown = process.communicate(timeout=120)[1]
    assert process.returncode == 0, shown
    for name in ("adapter.safetensors", "checkpoint/state.safetensors"):  # the best weights, and the last
        assert (whole / name).read_bytes() == (broken / name).read_bytes()


def test_a_full_disk_stops_the_run_and_keeps_the_last_checkpoint(tiny, tmp_path, monkeypatch):
    run, state = tmp_path / "run", tmp_path / "run" / "checkpoint" / "state.safetensors"
    train.main(flags(tiny, run, "--steps", "2"))
    good = state.read_bytes()
    (run / "config.toml").write_text((run / "config.toml").read_text().replace("steps = 2\n", "steps = 6\n", 1))
    replace = os.replace

    def full(source, target):
        if Path(target) == state:
            raise OSError(errno.ENOSPC, "No space left on device", str(target))
        replace(source, target)

    monkeypatch.setattr(atomic.os, "replace", full)
    with pytest.raises(OSError, match="No space left on device.*state.safetensors"):
        train.main(["--resume", "--out", str(run)])
    assert state.read_bytes() == good
    assert {path.name for path in state.parent.iterdir()} == {"state.safetensors", "previous.safetensors"}


@pytest.mark.parametrize(
    "argv, words",
    [
        (["--stepz", "3"], "error: unknown key 'stepz'; did you mean 'steps'"),
        (["--model", "tiny-cat"], "error: tiny-[a-z]+: no such file; shipped models are"),
        (["--out", "setup.cfg/run"], "error: setup.cfg/run: Not a directory"),
    ],
)
def test_from_the_command_line_an_error_is_one_line(argv, words, tmp_path):
    process, shown = script(*(["--out", str(tmp_path / "run")] if "--out" not in argv else []), *argv)
    assert process.returncode == 1
    assert len(shown.strip().splitlines()) == 1 and re.search(words, shown), shown


def photograph(path, shade):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.full((20, 24, 3), shade, np.uint8)).save(path)


def own(tiny, tmp_path, *more):
    return [*flags(tiny, tmp_path / "run"), "--data", str(tmp_path / "photos"), "--val", "", *more]


def test_one_image_in_total_is_enough(tiny, tmp_path):
    photograph(tmp_path / "photos" / "crack" / "a.png", 90)
    train.main(own(tiny, tmp_path, "--measure", "1"))
    assert (tmp_path / "run" / "adapter.safetensors").exists() and (tmp_path / "run" / "grid.png").exists()
    assert not (tmp_path / "run" / "metrics.json").exists()


def test_bad_images_and_empty_classes_stop_before_the_first_step(tiny, tmp_path):
    photograph(tmp_path / "photos" / "crack" / "a.png", 90)
    (tmp_path / "photos" / "crack" / "b.png").write_bytes((tmp_path / "photos" / "crack" / "a.png").read_bytes()[:40])
    with pytest.raises(ValueError, match="(?s)1 of 2 images cannot be used:.*b.png"):
        train.main(own(tiny, tmp_path))
    (tmp_path / "photos" / "crack" / "b.png").unlink()
    (tmp_path / "photos" / "hole").mkdir()
    with pytest.raises(ValueError, match="hole"):
        train.main(own(tiny, tmp_path, "--out", str(tmp_path / "other")))


def test_models_that_do_not_fit_each_other_are_told_apart(tiny, tmp_path):
    with pytest.raises(ValueError, match="expected a dit, found a vae"):
        train.main(flags(tiny, tmp_path / "a", "--model", str(tiny / "vae.safetensors")))
    with pytest.raises(ValueError, match="expected a vae, found a dit"):
        train.main(flags(tiny, tmp_path / "b", "--vae", str(tiny / "dit.safetensors")))
    with pytest.raises(ValueError, match="adapter is full"):
        train.main(flags(tiny, tmp_path / "c", "--model", "new:DiT-T/2", "--size", "16"))

"""Runs that are stopped, disturbed or cannot go on: what is said, what stays, and what resuming them gives."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

import train
from tests.test_train import flags, killed_before
from training import log as log_module
from training import state as state_module
from training.state import PREVIOUS, STATE, saved_steps

ROOT = Path(__file__).parents[2]


def photographs(folder, *classes, count=4):
    numbers = np.random.default_rng(0)
    for name in classes:
        (folder / name).mkdir(parents=True)
        for i in range(count):
            image = numbers.integers(0, 255, (20, 24, 3), dtype=np.uint8)
            Image.fromarray(image).save(folder / name / f"{i}.png")


def own(tiny, out, data, *more):
    return [*flags(tiny, out, without={"val"}), "--data", str(data), *more]


def start(*argv, **env):
    return subprocess.Popen(
        [sys.executable, "train.py", *argv],
        cwd=ROOT,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        env=os.environ | {"OMP_NUM_THREADS": "1"} | env,
    )


def wait_for(true, seconds=60):
    deadline = time.monotonic() + seconds
    while not true() and time.monotonic() < deadline:
        time.sleep(0.05)
    assert true()


def rename(data):
    (data / "2c").rename(data / "0first")


def add(data):
    Image.new("RGB", (20, 24)).save(data / "1a" / "9.png")


def replace(data):
    Image.new("RGB", (20, 24)).save(data / "1a" / "0.png")


def move(data):
    (data / "1a" / "0.png").rename(data / "1b" / "z.png")


@pytest.mark.parametrize(
    "change, words",
    [
        (rename, "other classes: its names changed .1a, 1b, 2c then, 0first, 1a, 1b now"),
        (add, "other data: its number of images changed .12 then, 13 now"),
        (replace, "other data: its pixels changed"),
        (move, "other data: its files changed"),
    ],
)
def test_images_that_changed_behind_a_run_are_refused(tiny, tmp_path, change, words):
    photographs(tmp_path / "data", "1a", "1b", "2c")
    killed_before(4, own(tiny, tmp_path / "run", tmp_path / "data"))
    change(tmp_path / "data")
    resume = ["--resume", "--out", str(tmp_path / "run")]
    with pytest.raises(ValueError, match=words):
        train.main(resume)
    if "data" in words:
        train.main([*resume, "--allow-change", "data"])
        assert (tmp_path / "run" / "adapter.safetensors").exists()
    else:
        with pytest.raises(ValueError, match=words):
            train.main([*resume, "--allow-change", "data"])
    text = (tmp_path / "run" / "config.toml").read_text()
    assert "allow_change = []" in text and "resume = false" in text


def test_another_base_of_the_same_name_is_refused(tiny, tmp_path):
    import shutil

    import weights

    shutil.copytree(tiny, tmp_path / "base")
    killed_before(4, flags(tmp_path / "base", tmp_path / "run"))
    for name, words in (("vae", "its autoencoder"), ("dit", "its model")):
        model = weights.load(tmp_path / "base" / f"{name}.safetensors")
        with torch.no_grad():
            for parameter in model.parameters():
                parameter.data = parameter + 0.01
        shutil.copy(tiny / f"{name}.safetensors", tmp_path / "whole.safetensors")
        card = {"card": {"classes": model.classes}} if name == "dit" else {}
        weights.save_model(model, tmp_path / "base" / f"{name}.safetensors", **card)
        with pytest.raises(ValueError, match=f"other base: {words} changed"):
            train.main(["--resume", "--out", str(tmp_path / "run")])
        shutil.copy(tmp_path / "whole.safetensors", tmp_path / "base" / f"{name}.safetensors")
    train.main(["--resume", "--out", str(tmp_path / "run")])


@pytest.mark.parametrize("spoil", ["cut", "blank", "nul", "broken", "no object"])
def test_a_spoiled_log_does_not_stop_a_run(tiny, tmp_path, spoil):
    train.main(flags(tiny, tmp_path / "whole"))
    killed_before(5, flags(tiny, tmp_path / "run"))
    path = tmp_path / "run" / "log.jsonl"
    content = path.read_bytes()
    path.write_bytes(
        {
            "cut": content[:-20],
            "blank": content + b"\n\n",
            "nul": content + bytes(30),
            "broken": content + b'{"step": 5, "lo\n',
            "no object": content + b"[1]\n5\n",
        }[spoil]
    )
    train.main(["--resume", "--out", str(tmp_path / "run")])
    logs = [
        [json.loads(line) for line in (tmp_path / run / "log.jsonl").read_text().splitlines()]
        for run in ("whole", "run")
    ]
    for line in (line for lines in logs for line in lines):
        line.pop("seconds", None), line.pop("peak_gib", None)
    assert logs[0] == logs[1]
    names = ("adapter.safetensors", str(STATE), str(PREVIOUS))
    assert all((tmp_path / "whole" / name).read_bytes() == (tmp_path / "run" / name).read_bytes() for name in names)


def test_a_log_keeps_no_number_that_json_has_not(tmp_path):
    with log_module.open_log(tmp_path, 0) as log:
        log({"step": 1, "loss": 0.5, "val": float("nan"), "grad": float("inf")})
    assert (tmp_path / "log.jsonl").read_text() == '{"step": 1, "loss": 0.5}\n'


def test_a_run_without_its_checkpoints_says_that_it_begins_again(tiny, tmp_path, capsys):
    killed_before(4, flags(tiny, tmp_path / "run"))
    for name in (STATE, PREVIOUS):
        (tmp_path / "run" / name).unlink(missing_ok=True)
    train.main(["--resume", "--out", str(tmp_path / "run")])
    assert "holds no checkpoint: the run begins again at step 0" in capsys.readouterr().err


def test_a_run_with_a_damaged_checkpoint_ends_as_if_left_alone(tiny, tmp_path, capsys):
    train.main(flags(tiny, tmp_path / "whole"))
    killed_before(5, flags(tiny, tmp_path / "run"))
    data = (tmp_path / "run" / STATE).read_bytes()
    (tmp_path / "run" / STATE).write_bytes(data[:-1])
    train.main(["--resume", "--out", str(tmp_path / "run")])
    assert "going on from the state before it, after step 2" in capsys.readouterr().err
    files = [(tmp_path / run / "adapter.safetensors").read_bytes() for run in ("whole", "run")]
    assert files[0] == files[1]


def test_the_second_of_two_processes_is_refused_in_its_first_seconds(tiny, tmp_path):
    first = start(*flags(tiny, tmp_path / "run", "--steps", "100000", "--sample-every", "100000"))
    wait_for(lambda: (tmp_path / "run" / ".lock").exists())
    for more in (flags(tiny, tmp_path / "run", "--seed", "2"), ["--resume", "--out", str(tmp_path / "run")]):
        if "--resume" in more:
            wait_for((tmp_path / "run" / STATE).exists)
        second = start(*more)
        shown = second.communicate(timeout=60)[0]
        assert second.returncode == 1 and shown.strip().endswith("another process is training in this folder")
    first.send_signal(signal.SIGINT)
    assert first.wait(timeout=60) == 130
    assert "seed = 0" in (tmp_path / "run" / "config.toml").read_text()


def test_a_name_that_the_terminal_lacks_does_not_end_a_run(tiny, tmp_path):
    photographs(tmp_path / "data", "裂纹", "完好")
    process = start(*own(tiny, tmp_path / "run", tmp_path / "data"), PYTHONIOENCODING="cp1252")
    shown = process.communicate(timeout=120)[0]
    assert process.returncode == 0 and r"class \u5b8c\u597d" in shown, shown


@pytest.mark.parametrize("kind", ["new", "mine", "link"])
def test_a_failed_run_says_its_first_error_and_takes_nothing_away(tiny, tmp_path, kind):
    (tmp_path / "real").mkdir()
    (tmp_path / "link").symlink_to(tmp_path / "real")
    (tmp_path / "mine").mkdir()
    for more, words in (
        (["--data", str(tmp_path / "nowhere")], "nowhere"),
        (["--adapter", "lora:targets=nothing", "--cache", str(tmp_path / kind / "cache")], "nothing"),
    ):
        with pytest.raises(ValueError, match=words):
            train.main(flags(tiny, tmp_path / kind, *more))
    assert (tmp_path / "mine").is_dir() and (tmp_path / "link").is_symlink() and (tmp_path / "real").is_dir()
    if kind == "new":  # the latents that were asked for there
        assert [path.name for path in (tmp_path / "new").iterdir()] == ["cache"]


SLOW = {"steps": "2", "count": "16", "sample-steps": "400", "save-every": "1"}


def slow(tiny, out, *more):
    return flags(tiny, out, *(word for name, value in SLOW.items() for word in (f"--{name}", value)), *more)


def test_ctrl_c_in_an_evaluation_says_what_it_waits_for_and_a_second_leaves(tiny, tmp_path):
    run = tmp_path / "run"
    process = start(*slow(tiny, run, "--sample-every", "1", "--sample-steps", "900"))
    wait_for((run / "log.jsonl").exists)
    time.sleep(0.3)  # into the first evaluation, which takes minutes
    process.send_signal(signal.SIGINT)
    lines = []
    for line in process.stdout:
        lines.append(line)
        if "waiting for the samples of step 0; again leaves at once" in line:
            break
    began = time.monotonic()
    process.send_signal(signal.SIGINT)
    rest = process.communicate(timeout=60)[0]
    assert process.returncode == 130 and time.monotonic() - began < 20, lines
    assert "left at once" in rest and "Traceback" not in rest and not run.exists()


def test_after_an_evaluation_that_was_waited_for_no_step_is_lost(tiny, tmp_path, monkeypatch):
    """The state is that of the evaluation's step, and the run ends as if left alone."""
    train.main(flags(tiny, tmp_path / "whole", "--save-every", "100"))
    evaluate = train.evaluate

    def interrupted(config, run, job, state, step, log):
        if step == 3:
            os.kill(os.getpid(), signal.SIGTERM)
        return evaluate(config, run, job, state, step, log)

    with monkeypatch.context() as patch:
        patch.setattr(train, "evaluate", interrupted)
        with pytest.raises(SystemExit) as leaving:
            train.main(flags(tiny, tmp_path / "run", "--save-every", "100"))
    assert leaving.value.code == 143 and saved_steps(tmp_path / "run") == (3, None)
    train.main(["--resume", "--out", str(tmp_path / "run")])
    files = [(tmp_path / run / "adapter.safetensors").read_bytes() for run in ("whole", "run")]
    assert files[0] == files[1]


@pytest.mark.parametrize("where, words", [("begin", "before the first step"), ("finish", "training is done and saved")])
def test_before_the_loop_and_after_it_ctrl_c_leaves_at_once(tiny, tmp_path, monkeypatch, capfd, where, words):
    real = getattr(train, where)

    def interrupted(*arguments):
        os.kill(os.getpid(), signal.SIGINT)
        return real(*arguments)

    with monkeypatch.context() as patch:
        patch.setattr(train, where, interrupted)
        with pytest.raises(SystemExit) as leaving:
            train.main(flags(tiny, tmp_path / "run"))
    assert leaving.value.code == 130 and words in capfd.readouterr().err
    assert (tmp_path / "run").exists() == (where == "finish")
    if where == "finish":
        train.main(["--resume", "--out", str(tmp_path / "run")])
        assert (tmp_path / "run" / "adapter.safetensors").exists()


def test_a_checkpoint_is_called_good_only_if_a_step_went_on_from_it(tiny, tmp_path, monkeypatch):
    def message(run, *more):
        with pytest.raises(SystemExit) as leaving:
            train.main(flags(tiny, tmp_path / run, *more))
        return str(leaving.value)

    wild = ["--lr", "1e30", "--clip", "1e30", "--warmup", "0"]
    shown = message("each", *wild, "--save-every", "1")
    assert "of step 1, holds the weights that led here and is not good" in shown and "is good" not in shown
    assert "There is no checkpoint" in message("none", *wild, "--save-every", "100")
    one_step = train.one_step

    def breaks(options, settings, step, job, optimizer):
        if step == 4:
            raise FloatingPointError("step 5: loss nan.")
        return one_step(options, settings, step, job, optimizer)

    monkeypatch.setattr(train, "one_step", breaks)
    assert "The last checkpoint, of step 3, is good: the next step had the loss" in message("good", "--save-every", "3")
    shown = message("before", "--save-every", "2")
    assert "of step 4, holds the weights that led here and is not good" in shown
    assert "previous.safetensors, of step 2, had the loss" in shown


def test_a_loss_that_climbs_is_said_during_the_run(tiny, tmp_path, capsys, monkeypatch):
    one_step = train.one_step

    def worse(options, settings, step, job, optimizer):
        return one_step(options, settings, step, job, optimizer) | {"loss": 1.0 if step < 25 else 9.0}

    monkeypatch.setattr(train, "one_step", worse)
    train.main(flags(tiny, tmp_path / "run", "--steps", "60", "--sample-every", "100"))
    assert capsys.readouterr().err.count("WARNING: the loss climbs: the mean of the last 20 steps") == 1


@pytest.mark.parametrize(
    "error",
    [
        MemoryError("std::bad_alloc"),
        torch.cuda.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB"),
        RuntimeError("[enforce fail at alloc_cpu.cpp:115] DefaultCPUAllocator: can't allocate memory: 9 bytes"),
    ],
    ids=["python", "cuda", "torch on a cpu"],
)
def test_out_of_memory_is_one_sentence_with_the_peak_and_the_levers(tiny, tmp_path, monkeypatch, error):
    def full(*_):
        raise error

    monkeypatch.setattr(train, "one_step", full)
    with pytest.raises(ValueError, match="out of memory on .*GiB at the peak: a smaller --batch .*--precision bf16"):
        train.main(flags(tiny, tmp_path / "run"))
    assert not (tmp_path / "run").exists()


def test_other_errors_stay_what_they_are(tiny, tmp_path, monkeypatch):
    monkeypatch.setattr(train, "one_step", lambda *_: (_ for _ in ()).throw(RuntimeError("shapes differ")))
    with pytest.raises(RuntimeError, match="shapes differ"):
        train.main(flags(tiny, tmp_path / "run"))


def test_a_run_that_the_disk_cannot_hold_does_not_begin(tiny, tmp_path, monkeypatch):
    usage = state_module.shutil.disk_usage
    monkeypatch.setattr(state_module.shutil, "disk_usage", lambda path: usage(path)._replace(free=100))
    with pytest.raises(ValueError, match="the disk has 100 free: make room"):
        train.main(flags(tiny, tmp_path / "run"))
    assert not (tmp_path / "run").exists()


def test_a_dry_run_says_what_the_run_takes_and_leaves_nothing(tiny, tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    train.main(flags(tiny, tmp_path / "run", "--dry-run", "--measure", "2"))
    shown = capsys.readouterr().out
    for words in ("peak memory: ", " GiB", "seconds a step: ", "the whole run: about ", "on disk: ", "--ema 0 saves"):
        assert words in shown
    assert list(tmp_path.iterdir()) == []

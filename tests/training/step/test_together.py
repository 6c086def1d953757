"""Runs of two and four processes, started by torchrun: the losses of one process, one folder, resuming, a restart."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch

import weights
from config.training import Loop
from ops.machine import process
from tests.test_train import flags
from tests.torchrun import torchrun
from training.step import together

ROOT = Path(__file__).parents[3]
STEP = ("--batch", "4", "--accumulate", "4", "--steps", "4", "--sample-every", "4")

THREADS = """
import os, sys
from pathlib import Path
sys.path.insert(0, os.getcwd())
import train
from ops.machine import process

def threads():
    names = [(task / "comm").read_text() for task in Path("/proc/self/task").iterdir()]
    return [name for name in names if "gloo" in name]

def waited(wait=process.wait):
    wait()
    assert threads(), "while there is a group, it has threads of this name"

process.wait = waited
train.main(sys.argv[1:])
assert not threads(), threads()
"""


def command(count, *argv, script="train.py", more=()):
    """The command torchrun, as it is typed, of one thread a process."""
    words = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", str(count), *more, "--"]
    environment = os.environ | {"OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT), "TORCHELASTIC_ENABLE_FILE_TIMER": "0"}
    how = {"cwd": ROOT, "env": environment, "stdout": subprocess.PIPE, "stderr": subprocess.STDOUT, "text": True}
    return subprocess.run([*words, script, *argv], timeout=240, **how)


def losses(run):
    lines = map(json.loads, (run / "log.jsonl").read_text().splitlines())
    return [(line["loss"], line["grad"]) for line in lines if "loss" in line]


@pytest.fixture(scope="module")
def runs(tiny, tmp_path_factory):
    """The same settings in one process, in two and in four."""
    folder = tmp_path_factory.mktemp("together")
    for count, start in ((1, torchrun), (2, command), (4, torchrun)):
        done = start(count, *flags(tiny, folder / str(count), *STEP, "--cache", str(folder / "cache")))
        assert done.returncode == 0, done.stdout
        (folder / f"{count}.txt").write_text(done.stdout)
    return folder


@pytest.mark.parametrize("count", [2, 4])
def test_any_number_of_processes_takes_the_same_steps(runs, count):
    one, several = (torch.tensor(losses(runs / str(n))) for n in (1, count))
    assert one.shape == (4, 2) and torch.allclose(one, several, rtol=1e-5)
    ours, theirs = (weights.load_adapter(runs / str(n) / "adapter.safetensors")[0] for n in (1, count))
    assert all(torch.allclose(ours[name], theirs[name], rtol=1e-3, atol=1e-5) for name in ours)


def test_the_first_process_alone_writes_and_speaks(runs):
    names = [sorted(str(path.relative_to(run)) for path in run.rglob("*")) for run in (runs / "1", runs / "2")]
    assert names[0] == names[1]
    assert [(runs / f"{n}.txt").read_text().count("parameters train") for n in (1, 2, 4)] == [1, 1, 1]
    assert len(list((runs / "cache").glob("latents-*"))) == 2  # training and held-out images, one shard each


def test_two_processes_resume_to_the_byte(runs, tiny, tmp_path):
    """Stopped by a signal in the middle, both leave after the same step, and go on as the run left alone."""
    argv = flags(tiny, tmp_path / "run", *STEP, "--cache", str(runs / "cache"))
    half = torchrun(2, *argv, "--save-every", "1", wait=False)
    log = tmp_path / "run" / "log.jsonl"
    while half.poll() is None and not (log.exists() and '"loss"' in log.read_text()):
        time.sleep(0.01)
    half.send_signal(signal.SIGTERM)
    half.wait()
    done = torchrun(2, *argv, "--save-every", "1", "--resume")
    assert done.returncode == 0, done.stdout
    assert losses(tmp_path / "run") == losses(runs / "2")
    ours, theirs = (weights.load_adapter(run / "adapter.safetensors")[0] for run in (tmp_path / "run", runs / "2"))
    assert all(torch.equal(ours[name], theirs[name]) for name in ours)


def test_torchrun_restarts_go_on(runs, tiny, tmp_path):
    """One process is killed; torchrun starts both again, and the run ends as if it had not been."""
    argv = flags(tiny, tmp_path / "run", *STEP, "--save-every", "1", "--cache", str(runs / "cache"))
    code = (
        "import os, signal, sys, train\n"
        "from training import state\n"
        "save = train.save_state\n"
        "def dies(run, *rest):\n"
        "    save(run, *rest)\n"
        "    if rest[-1] == 2 and os.environ['RANK'] == '1' and os.environ['TORCHELASTIC_RESTART_COUNT'] == '0':\n"
        "        os.kill(os.getpid(), signal.SIGKILL)\n"
        "train.save_state = dies\n"
        "train.main(sys.argv[1:])\n"
    )
    script = tmp_path / "dies.py"
    script.write_text(code)
    done = command(2, *argv, script=str(script), more=("--max-restarts", "1"))
    assert done.returncode == 0, done.stdout
    assert losses(tmp_path / "run") == losses(runs / "2")


@pytest.mark.skipif(sys.platform != "linux", reason="threads are read from /proc")
@pytest.mark.parametrize("more", [(), ("--adapter", "full", "--shard")], ids=["replicas", "divided"])
def test_the_threads_of_the_group_end_with_the_run(runs, tiny, tmp_path, more):
    """One that is busy when Python ends would abort a process that has done everything."""
    script = tmp_path / "ends.py"
    script.write_text(THREADS)
    done = command(2, *flags(tiny, tmp_path / "run", *STEP, "--cache", str(runs / "cache"), *more), script=str(script))
    assert done.returncode == 0, done.stdout


def test_samples_are_shared_and_are_those_of_one_process(runs, tmp_path):
    argv = ("--run", str(runs / "1"), "--count", "3", "--batch", "2", "--steps", "2", "--precision", "fp32", "--out")
    for count in (1, 2):
        done = torchrun(count, *argv, str(tmp_path / str(count)), script="sample.py")
        assert done.returncode == 0 and done.stdout.count("images and grid.png") == 1, done.stdout
    one, two = ({path.name: path.read_bytes() for path in (tmp_path / n).iterdir()} for n in "12")
    assert len(one) == 16 and one == two


def test_micro_batches_are_shared(monkeypatch):
    for count, number, expected in ((1, 0, [0, 1, 2, 3]), (2, 1, [1, 3]), (4, 2, [2])):
        monkeypatch.setattr(process, "count", lambda count=count: count)
        monkeypatch.setattr(process, "number", lambda number=number: number)
        assert list(together.own_part(Loop(accumulate=4))) == expected
    with pytest.raises(ValueError, match="multiple of 4, found 2: for as many images, --batch 16 --accumulate 4"):
        together.own_part(Loop(batch=32, accumulate=2))


def test_one_process_is_what_one_process_was():
    assert process.count() == 1 and process.number() == 0 and process.is_first() and process.highest(3) == 3
    assert process.by_first(lambda: "made") == "made" and process.total([0.1, 2]) == [0.1, 2]

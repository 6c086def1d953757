"""The folder of a run: one process at a time, nothing left by a run that failed early, nothing taken that was there."""

import multiprocessing
import os
import tempfile

import pytest

from training import folder as module
from training.folder import LOCK, claimed


def names(folder):
    return sorted(path.name for path in folder.iterdir())


def test_a_folder_is_made_and_goes_again_if_nothing_was_written(tmp_path):
    with claimed(str(tmp_path / "a" / "b"), False) as run:
        assert run.is_dir() and names(run) == [LOCK]
    assert names(tmp_path) == []


@pytest.mark.parametrize("kind", ["folder", "link", "parent"])
def test_a_folder_that_was_there_stays_when_a_run_fails(tmp_path, kind):
    (tmp_path / "mine").mkdir()
    out = tmp_path / "mine"
    if kind == "link":
        out = tmp_path / "link"
        out.symlink_to(tmp_path / "mine")
    if kind == "parent":
        out = tmp_path / "mine" / "new"
    with pytest.raises(ValueError, match="the first error"), claimed(str(out), False):
        raise ValueError("the first error")
    assert names(tmp_path / "mine") == [] and out.exists() == (kind != "parent")


def test_what_a_run_writes_before_its_first_step_goes_with_it_and_nothing_else(tmp_path):
    def fail(*more):
        with pytest.raises(KeyboardInterrupt), claimed(str(tmp_path / "run"), False) as run:
            (run / "samples").mkdir()
            for name in ("config.toml", "log.jsonl", "samples/step_000000.png", *more):
                (run / name).write_bytes(b"")
            raise KeyboardInterrupt

    fail()
    assert names(tmp_path) == []
    fail("mine.txt")
    assert names(tmp_path / "run") == ["mine.txt"]


@pytest.mark.parametrize("resume", [False, True])
def test_a_run_that_made_a_step_stays(tmp_path, resume):
    with pytest.raises(KeyboardInterrupt), claimed(str(tmp_path / "run"), False) as run:
        (run / "log.jsonl").write_text('{"step": 1, "loss": 0.5}\n')
        raise KeyboardInterrupt
    assert names(tmp_path / "run") == ["log.jsonl"]
    if not resume:
        with pytest.raises(ValueError, match="holds a run already"), claimed(str(tmp_path / "run"), False):
            pass
    else:
        with pytest.raises(OSError), claimed(str(tmp_path / "run"), True):
            raise OSError
    assert names(tmp_path / "run") == ["log.jsonl"]


def test_a_run_that_is_resumed_before_its_first_step_keeps_its_settings(tmp_path):
    (tmp_path / "config.toml").write_text("steps = 9\n")
    with pytest.raises(OSError), claimed(str(tmp_path), True):
        raise OSError
    assert names(tmp_path) == ["config.toml"]


def hold(out, resume, ready, go):
    with claimed(out, resume):
        ready.set()
        go.wait(60)


@pytest.mark.parametrize("resume", [False, True])
def test_a_second_process_is_refused_at_once_and_harms_nothing(tmp_path, resume):
    context = multiprocessing.get_context("fork")
    ready, go = context.Event(), context.Event()
    first = context.Process(target=hold, args=(str(tmp_path / "run"), resume, ready, go))
    first.start()
    assert ready.wait(60)
    writing = tmp_path / "run" / ".state.safetensors.abc.tmp"  # of the first, at this moment
    writing.write_bytes(b"half")
    for again in (False, True):
        with pytest.raises(ValueError, match="another process is training in this folder"):
            with claimed(str(tmp_path / "run"), again):
                pass
    assert writing.exists() and (tmp_path / "run" / LOCK).exists()
    go.set()
    first.join(60)
    assert first.exitcode == 0
    with claimed(str(tmp_path / "run"), True):  # what a killed process left is removed
        assert not writing.exists()


def test_the_lock_of_a_killed_process_holds_nothing(tmp_path):
    context = multiprocessing.get_context("fork")
    ready, go = context.Event(), context.Event()
    first = context.Process(target=hold, args=(str(tmp_path / "run"), False, ready, go))
    first.start()
    assert ready.wait(60)
    first.kill()
    first.join(60)
    assert (tmp_path / "run" / LOCK).exists()
    with claimed(str(tmp_path / "run"), False) as run:
        assert names(run) == [LOCK]
    assert names(tmp_path / "run") == []


def take(results, start):
    start.wait(60)
    with claimed("", False) as run:
        (run / "mine").write_text(str(os.getpid()))
        results.put(str(run))


def test_runs_without_a_name_that_start_together_get_different_folders(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    context = multiprocessing.get_context("fork")
    results, start = context.Queue(), context.Event()
    processes = [context.Process(target=take, args=(results, start)) for _ in range(6)]
    for process in processes:
        process.start()
    start.set()
    taken = [results.get(timeout=60) for _ in processes]
    for process in processes:
        process.join(60)
    assert len(set(taken)) == 6 and sorted(taken)[0] == "runs/001"
    with claimed("", False) as run:
        assert str(run) == "runs/007"
    assert names(tmp_path / "runs") == [f"{i:03d}" for i in range(1, 7)]


def test_a_lock_that_its_owner_has_just_removed_does_not_count(tmp_path, monkeypatch):
    real = module.fcntl.flock

    def late(lock, how):
        (tmp_path / LOCK).unlink()
        (tmp_path / LOCK).write_text("")  # of a third process
        real(lock, how)

    monkeypatch.setattr(module.fcntl, "flock", late)
    with pytest.raises(ValueError, match="another process"), claimed(str(tmp_path), False):
        pass


def test_a_folder_that_cannot_be_written_is_told_at_once(tmp_path, monkeypatch):
    def refuse(*_, **__):
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(tempfile, "NamedTemporaryFile", refuse)
    with pytest.raises(ValueError, match=r"run: the run folder cannot be written into \(Permission denied\)"):
        with claimed(str(tmp_path / "run"), False):
            pytest.fail("begun")
    assert names(tmp_path) == []

"""Atomic writing: the whole new file or the old one, and nothing of processes that are dead."""

import multiprocessing
import os
import signal

import pytest

from data.output.atomic import replacing, write_atomic


def names(folder):
    return sorted(path.name for path in folder.iterdir())


def test_a_failure_leaves_the_old_file_and_no_other(tmp_path):
    write_atomic(tmp_path / "a", b"old")
    with pytest.raises(RuntimeError), replacing(tmp_path / "a") as file:
        file.write(b"ne")
        raise RuntimeError
    assert (tmp_path / "a").read_bytes() == b"old" and names(tmp_path) == ["a"]


def half_written(path, ready):
    with replacing(path) as file:
        file.write(b"half")
        file.flush()
        ready.set()
        signal.pause()


def test_what_a_killed_process_left_is_removed_by_the_next_and_what_a_living_one_writes_is_not(tmp_path):
    context = multiprocessing.get_context("fork")
    writers = []
    for name in ("a[1]", "a[1]", "b"):
        ready = context.Event()
        writers.append(context.Process(target=half_written, args=(tmp_path / name, ready)))
        writers[-1].start()
        assert ready.wait(60)
    assert len(names(tmp_path)) == 3  # the second of a[1] has not removed the first's
    os.kill(writers[0].pid, signal.SIGKILL)
    writers[0].join(60)
    write_atomic(tmp_path / "a[1]", b"whole")
    left = names(tmp_path)
    assert len(left) == 3 and "a[1]" in left and sum(name.startswith(".a[1].") for name in left) == 1
    for writer in writers[1:]:
        writer.kill()
        writer.join(60)
    write_atomic(tmp_path / "a[1]", b"again")
    write_atomic(tmp_path / "b", b"whole")
    assert names(tmp_path) == ["a[1]", "b"]


def test_a_file_is_on_the_disk_before_it_has_its_name_and_all_may_read_it(tmp_path, monkeypatch):
    done, fsync, rename = [], os.fsync, os.replace
    monkeypatch.setattr(os, "fsync", lambda file: done.append(os.fstat(file).st_size) or fsync(file))
    monkeypatch.setattr(os, "replace", lambda *names: done.append("renamed") or rename(*names))
    write_atomic(tmp_path / "a", b"whole")
    assert done == [5, "renamed"] and (tmp_path / "a").stat().st_mode & 0o777 == 0o644

"""The files of a run: keys of earlier versions have their names of today, values and order stay."""

import json

import pytest

from metrics.statistics.corruption import NONE
from training.log import open_log, read_log, read_numbers
from training.monitor import measurements

OLD = {"step": 10, "loss": 0.5, "fidelity": 0.9, "fidelity_noise": 0.01, "residual": 1.5, "residual_noise": 0.02}
NEW = {
    "step": 10,
    "loss": 0.5,
    "feature_similarity": 0.9,
    "feature_similarity_deviation": 0.01,
    "noise_residual": 1.5,
    "noise_residual_deviation": 0.02,
}


def write(run, *lines, end="\n"):
    (run / "log.jsonl").write_text("\n".join(json.dumps(line) for line in lines) + end)


def test_a_log_that_an_earlier_version_began_goes_on(tmp_path):
    write(tmp_path, OLD, {"step": 15, "loss": 0.4}, NEW | {"step": 20})
    assert read_log(tmp_path) == [NEW, {"step": 15, "loss": 0.4}, NEW | {"step": 20}]
    assert list(read_log(tmp_path)[0]) == list(NEW)
    assert measurements(tmp_path) == ([10, 20], [0.9, 0.9], [1.5, 1.5], [(0.01, 0.02)] * 2, NONE)


def test_the_line_that_a_kill_cut_is_left_out(tmp_path):
    write(tmp_path, NEW, end='\n{"step": 1')
    assert read_log(tmp_path) == [NEW]


def test_the_table_of_an_earlier_version(tmp_path):
    by_class = {"hazelnut/cut": 0.25}
    old = {"network": "n", "asked_state": 0.5, "asked_state_by_class": by_class, "asked_state_real": 1.0}
    (tmp_path / "metrics.json").write_text(json.dumps(old | {"asked_state_decoded": 0.9}))
    assert read_numbers(tmp_path) == {
        "network": "n",
        "class_accuracy": 0.5,
        "class_accuracy_by_class": by_class,
        "class_accuracy_real": 1.0,
        "class_accuracy_decoded": 0.9,
    }


def test_a_run_without_files_has_no_numbers(tmp_path):
    assert read_log(tmp_path) == [] and read_numbers(tmp_path) == {}


def test_a_number_that_is_none_is_left_out_of_the_file_and_null_when_it_is_read(tmp_path):
    """A log of an earlier version may hold NaN; what a resumed run writes again is JSON."""
    (tmp_path / "log.jsonl").write_text('{"step": 1, "loss": NaN}\n{"step": 2, "loss": 0.5, "val": null}\n')
    assert read_log(tmp_path)[1] == {"step": 2, "loss": 0.5}
    with open_log(tmp_path, 2) as log:
        log({"step": 3, "loss": 0.5, "val": float("nan"), "best": float("inf")})
    lines = (tmp_path / "log.jsonl").read_text().splitlines()
    strict = [json.loads(line, parse_constant=lambda word: 1 / 0) for line in lines]
    assert strict == [{"step": 1, "loss": None}, {"step": 2, "loss": 0.5}, {"step": 3, "loss": 0.5}]


def test_a_line_in_between_that_is_none_is_said(tmp_path, capsys):
    (tmp_path / "log.jsonl").write_text('{"step": 1, "loss": 1}\nnonsense\n[2]\n{"step": 2, "loss": 1}\n')
    assert [line["step"] for line in read_log(tmp_path)] == [1, 2]
    assert "line 2 is no line of a log; 2 such lines are left out" in capsys.readouterr().err


def test_a_line_that_the_disk_cuts_off_is_an_error(tmp_path):
    """A limit on the size of a file stands for the full disk: of 20 bytes 5 are written."""
    resource = pytest.importorskip("resource")
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    with open_log(tmp_path, 0) as log, pytest.raises(OSError, match="5 of its next 20 bytes were written, disk full"):
        resource.setrlimit(resource.RLIMIT_FSIZE, (5, hard))
        try:
            log({"step": 1, "a": 2})
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))

"""The bench on small models: a row is measured and kept, a side that fails is told, the table names what is asked."""

import json
from importlib import import_module

import pytest

from bench.__main__ import main
from bench.page import about, asked, line, page
from bench.profile import main as profile
from bench.rows import ROWS
from bench.sizes import FULL, TINY


def test_every_side_is_a_function_or_a_process():
    assert TINY.keys() == FULL.keys()
    for side in {side for row in ROWS.values() for side in (row.ours, row.other) if side}:
        file, _, name = side.partition(":")
        assert side.startswith("-c ") or callable(getattr(import_module(f"bench.sides.{file}"), name)), side
    assert all(bool(row.other) == bool(row.named) for row in ROWS.values())


def test_a_row_is_measured_written_and_not_measured_again(tmp_path, capsys):
    """`plain` needs no other package; the second call finds the row in the file beside the page."""
    out = tmp_path / "bench.md"
    main(["--tiny", "--rounds", "1", "--rows", "dit_original", "--out", str(out)])
    kept = json.loads(out.with_suffix(".json").read_text())
    assert kept["dit_original"]["ratio"] > 0 and kept["dit_original"]["peak"] > 0.1
    (row,) = [line for line in out.read_text().splitlines() if line.startswith("| `")]
    assert "tiny models" in row and "the original's arithmetic" in row and "failed" not in row
    assert "python -m bench --rows dit_original --rounds 1" in out.read_text()
    assert "no GPU was at hand" in out.read_text()


def test_a_failure_is_a_row():
    result = {"on": "here", "command": "python -m bench --rows unet", "size": "", "failed": "peers:unet: exit status 1"}
    assert "| failed: peers:unet: exit status 1 |" in page({"unet": result})


def test_every_row_has_the_columns_of_the_table():
    alone = {"on": "here", "command": "", "ours": 2.0, "peak": 3.0, "rounds": 1}
    both = alone | {"other": 4.0, "other_peak": 3.0, "ratio": 0.5, "least": 0.5, "most": 0.5, "memory": 1.0}
    lines = [line(name, row, both if row.other else alone) for name, row in ROWS.items()]
    lines += [line(name, row, {"failed": "x"}) for name, row in ROWS.items()]
    assert {text.count("|") for text in lines} == {10}
    assert line("train_dit", ROWS["train_dit"], alone).endswith("| none | 2.00 s | | | 1 | 3.00 | |")


def test_a_row_says_what_is_smaller_than_published():
    assert about("dit_fp32", FULL) == about("import_train", TINY) == "" and about("unet", TINY) == "tiny models"
    assert about("lora", FULL | {"depth": 4}) == "4 of 28 blocks" and about("unet", FULL | {"depth": 4}) == ""
    assert about("bitfit_small", FULL | {"depth": 4}) == ""
    assert about("xl_lora", FULL | {"xl_side": 512}) == "512 pixels" and about("ddim", FULL) == "50 steps"


def test_what_is_asked_stands_beside_the_ratio():
    assert asked(0.75, 0.8) == "0.75 (<= 0.80)" and asked(1.8, -1.7) == "1.80 (>= 1.70)" and asked(1, None) == "1.00"


def test_an_unknown_row_is_refused(capsys):
    with pytest.raises(SystemExit):
        main(["--rows", "nothing"])
    assert "no row 'nothing'; the rows are dit_fp32" in capsys.readouterr().err


def test_a_profile_tells_where_the_time_goes(capsys):
    profile(["ours:bitfit", "--tiny"])
    first, *rows = capsys.readouterr().out.splitlines()
    assert first.startswith("ours:bitfit: ") and len(rows) == 8 and any("aten::mm, " in row for row in rows)
    assert 0 < sum(float(row.split("%")[0]) for row in rows) <= 100
    with pytest.raises(SystemExit):
        profile(["ours:nothing"])
    assert "no side 'ours:nothing'; the sides are " in capsys.readouterr().err

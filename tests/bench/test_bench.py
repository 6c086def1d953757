"""The bench on small models: a row is measured and kept, a side that fails is told, the table names what is asked."""

import json
from importlib import import_module

import pytest

from bench.__main__ import asked, main, page
from bench.interleave import Failed, Side, summary
from bench.rows import ROWS
from bench.sizes import FULL, TINY
from bench.worker import timed


def test_every_side_is_a_function_or_a_process():
    assert TINY.keys() == FULL.keys()
    for side in {side for row in ROWS.values() for side in (row.ours, row.other)}:
        file, _, name = side.partition(":")
        assert side.startswith("-c ") or callable(getattr(import_module(f"bench.{file}"), name)), side


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


def test_a_side_that_fails_is_a_sentence():
    with pytest.raises(Failed, match="ours:nothing: exit status 1, AttributeError"):
        Side("ours:nothing", TINY, "cpu")
    result = {"on": "here", "command": "python -m bench --rows unet", "size": "", "failed": "peers:unet: exit status 1"}
    assert "| failed: peers:unet: exit status 1 |" in page({"unet": result})


def test_the_ratio_is_the_median_of_the_pairs():
    def took(seconds, peak):
        return {"wall": seconds, "cpu": 2 * seconds, "peak": peak}

    rounds = [[took(1, 2), took(2, 2)], [took(3, 2), took(4, 4)], [took(9, 1), took(3, 2)]]
    result = summary(rounds, "cpu")
    assert (result["ratio"], result["least"], result["most"], result["memory"]) == (0.75, 0.5, 3, 0.5)
    assert (result["ours"], result["other"]) == (6, 6)
    assert asked(0.75, 0.8) == "0.75 (<= 0.80)" and asked(1.8, -1.7) == "1.80 (>= 1.70)" and asked(1, None) == "1.00"


def test_a_step_may_tell_its_own_numbers():
    assert timed(lambda: {"peak": 7.0}, "cpu")["peak"] == 7.0


def test_an_unknown_row_is_refused(capsys):
    with pytest.raises(SystemExit):
        main(["--rows", "nothing"])
    assert "no row 'nothing'; the rows are dit_fp32" in capsys.readouterr().err

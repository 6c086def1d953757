"""A process and a step are timed; a process that fails is a sentence; the ratio is the median of the pairs'."""

import ast
import subprocess
import sys

import pytest

from bench.rows import Row
from bench.sizes import TINY
from bench.timing.child import ROOT, Failed, run
from bench.timing.interleave import Side, measure, summary
from bench.timing.worker import timed


def test_a_process_is_timed_and_its_own_memory_counted():
    """By a process that is small itself, as the bench is: a peak begins with that of the parent."""
    fill = "import sys; x = bytes([1]) * int(sys.argv[1])"
    code = f"from bench.timing.child import run; print([run(['-c', {fill!r}, n]) for n in ('1', '{2**28}')])"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    small, large = ast.literal_eval(done.stdout)
    assert 0.24 < large["peak"] - small["peak"] < 0.26  # GiB
    assert small.keys() == {"wall", "cpu", "peak"} and min(small.values()) > 0


@pytest.mark.parametrize(
    "code, words",
    [
        ("import sys; sys.exit('error: no model')", "exit status 1, error: no model"),
        ("raise SystemExit(3)", "exit status 3, nothing printed"),
        ("import os, signal; os.kill(os.getpid(), signal.SIGKILL)", "exit status -9, nothing printed"),
    ],
)
def test_a_process_that_fails_is_a_sentence(code, words):
    with pytest.raises(Failed, match=f"{words}$"):
        run(["-c", code])
    with pytest.raises(Failed, match=f"{words}$"):
        Side(f'-c "{code}"', TINY, "cpu").step()


def test_a_side_that_fails_is_a_sentence():
    with pytest.raises(Failed, match="ours:nothing: exit status 1, AttributeError"):
        Side("ours:nothing", TINY, "cpu")


def test_a_row_without_another_side_is_timed_alone():
    ((took,), (again,)) = measure(Row("nothing", "-c pass"), TINY, "cpu", rounds=2)
    assert summary([[took], [again]], "wall").keys() == {"ours", "peak", "rounds"}


def test_the_ratio_is_the_median_of_the_pairs():
    def took(seconds, peak):
        return {"wall": seconds, "cpu": 2 * seconds, "peak": peak}

    rounds = [[took(1, 2), took(2, 2)], [took(3, 2), took(4, 4)], [took(9, 1), took(3, 2)]]
    result = summary(rounds, "cpu")
    assert (result["ratio"], result["least"], result["most"], result["memory"]) == (0.75, 0.5, 3, 0.5)
    assert (result["ours"], result["other"]) == (6, 6)


def test_a_step_may_tell_its_own_numbers():
    assert timed(lambda: {"peak": 7.0}, "cpu")["peak"] == 7.0

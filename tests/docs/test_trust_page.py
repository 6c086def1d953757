"""docs/trust.md: every row names a function that keeps its promise and a test that exists; counts are the files'."""

import json
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent.parent
PAGE = (ROOT / "docs" / "trust.md").read_text("utf-8")
ROWS = [
    [cell.strip() for cell in line.strip("|").split(" | ")]
    for line in PAGE.partition("## The long trials")[0].splitlines()
    if line.startswith("|") and not re.match(r"\| fault|\|---", line)
]


def defines(path, name):
    return re.search(rf"^ *def {name}\(", (ROOT / path).read_text("utf-8"), re.M) is not None


@pytest.mark.parametrize("row", ROWS, ids=[row[0] for row in ROWS])
def test_a_row_has_its_function_and_its_tests(row):
    assert len(row) == 4
    path, name = row[2].strip("`").split(":")
    assert defines(path, name), f"{path} has no {name}"
    tests = re.findall(r"\[(\w+)\]\(\.\./([\w/]+\.py)\)", row[3])
    assert tests and len(tests) == row[3].count("](")
    for test, file in tests:
        assert test.startswith("test_") and defines(file, test), f"{file} has no {test}"


def test_there_are_rows_of_every_kind():
    assert len(ROWS) > 45 and len({row[0] for row in ROWS}) == len(ROWS)


def test_the_numbers_of_the_long_trials_are_those_of_their_files():
    kills, fuzz = (json.loads((ROOT / "tests" / "long" / f"{name}.json").read_text()) for name in ("kills", "fuzz"))
    assert f"| kills | {kills['kills']:,} | {kills['runs that differ']} | {kills['machine']} |" in PAGE
    assert f"| wrong inputs | {fuzz['inputs']:,} | {fuzz['faults']} | {fuzz['machine']} |" in PAGE
    assert f"of {fuzz['targets']} kinds" in PAGE


def test_the_dependencies_have_the_floors_below_which_they_are_not_safe():
    text = (ROOT / "setup.cfg").read_text()
    assert "torch>=2.10" in text and "pillow>=13.0.0" in text

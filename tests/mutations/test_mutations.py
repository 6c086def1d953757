"""Every row of the mutations can still be run, and the script says truly what a change does."""

import pytest

from tests.mutations import __main__ as mutations

ROWS = [row for table in mutations.TABLES for row in mutations.read_rows(table)]
PACKAGES = ("dit", "unet", "sampling", "adapters", "recipes", "data", "weights")


@pytest.mark.parametrize("file", sorted({row.file for row in ROWS}))
def test_the_old_text_of_every_row_stands_once_in_its_file(file):
    """A line that was rewritten takes its row along: write the row anew, or remove it if what it broke is gone."""
    assert not [fault for row in ROWS if row.file == file and (fault := mutations.fault(row))]


def test_there_are_enough_of_them():
    equations = [row for row in ROWS if row.table == "equations.txt" and row.file.split("/")[0] in PACKAGES]
    assert len(equations) >= 60 and len(ROWS) >= 100
    assert len({(row.file, row.old, row.new) for row in ROWS}) == len(ROWS)


def test_a_change_is_noticed_by_a_test_or_by_none(tmp_path):
    (tmp_path / "setup.cfg").write_text("[tool:pytest]\n")
    (tmp_path / "thing.py").write_text("VALUE = 1\n")
    (tmp_path / "test_thing.py").write_text(
        "import thing\ndef test_first(): pass\ndef test_value(): assert thing.VALUE == 1\n"
    )
    row = mutations.Mutation("x.txt", 1, "thing.py", ("test_thing.py",), "VALUE = 1", "VALUE = 2", "", "")
    assert not mutations.fault(row, tmp_path) and mutations.one(tmp_path, row) == "test_thing.py::test_value"
    assert mutations.one(tmp_path, row._replace(new="VALUE = 1.0")) == ""
    assert mutations.one(tmp_path, row._replace(new="import os; os._exit(3)")) == "test_thing.py"
    assert (tmp_path / "thing.py").read_text() == "VALUE = 1\n"
    assert not mutations.failing(tmp_path, {"test_thing.py::test_value"})


@pytest.mark.parametrize(
    "row, words",
    [
        ({"old": "VALUE"}, "stands 2 times in thing.py, not once"),
        ({"old": "OTHER"}, "stands 0 times"),
        ({"file": "nothing.py"}, "no file nothing.py"),
        ({"tests": ("test_nothing.py::test_a",)}, "no test test_nothing.py::test_a"),
        ({"new": "A = VALUE"}, "the new text is the old one"),
    ],
)
def test_a_row_that_cannot_be_run_is_an_error(tmp_path, row, words):
    (tmp_path / "thing.py").write_text("A = VALUE\nB = VALUE\n")
    whole = mutations.Mutation("x.txt", 7, "thing.py", ("thing.py",), "A = VALUE", "A = 2", "", "")
    told = mutations.fault(whole._replace(**row), tmp_path)
    assert told.startswith("x.txt, line 7: ") and words in told

"""The page of rows: as its list makes it, every command one that its script reads, every test one that is there."""

import re
import runpy
import shlex
from pathlib import Path

import pytest

from config import given
from experiments.plan import read_plan
from experiments.search import read_search
from inference import settings as call_settings
from recipes.settings import all_parts, check
from tests.docs.test_pages import known_flags
from tests.test_readme import SMALL

ROOT = Path(__file__).parents[2]
PAGE = runpy.run_path(str(ROOT / "docs" / "rows.py"), run_name="rows")
ROWS = [row for name, section in PAGE["sections"]().items() if name != "open" for row in section["rows"]]


def test_the_page_is_as_its_list():
    assert (ROOT / "docs" / "rows.md").read_text() == PAGE["page"](), "python -m docs.rows makes it anew"
    assert len(ROWS) == len({what for what, *_ in ROWS}) > 43


@pytest.mark.parametrize("what, command, test", ROWS, ids=[row[0] for row in ROWS])
def test_a_row_has_a_command_that_is_read_and_a_test_that_is_there(what, command, test, monkeypatch):
    monkeypatch.chdir(ROOT)
    file, _, name = test.partition("::")
    assert re.search(rf"^def {name}\(", (ROOT / "tests" / file).read_text(), re.M), test
    script, *words = shlex.split(command)
    if script == "train.py":
        values = given(words, all_parts())
        if not values.get("resume"):
            model = values.get("model", "")
            check(values | ({"model": SMALL.get(model, model)} if model else {}))
    elif script == "sample.py":
        given(words, call_settings.all_parts())
    elif script == "compare.py":
        read_plan(words[0])
    elif words[:1] == ["experiments.search"]:
        read_search(words[1])
    else:
        flags = {word[2:] for word in words if word.startswith("--")}
        assert flags <= known_flags((script, words[0]) if script == "-m" else (script,))

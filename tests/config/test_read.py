"""Defaults < TOML < flags; a wrong name, type, range or file is one sentence, before anything is loaded."""

from dataclasses import dataclass

import pytest

from config import Config, check_unread, option, read, read_toml, to_toml, usage


@dataclass
class Naming:
    """Names"""

    name: str = option("a", "a word", old="title")
    kind: str = option("plain", "how", choices=("plain", "fancy"))
    adapter: list[str] = option(["full"], "what trains")


@dataclass
class Counting:
    """Numbers"""

    steps: int = option(3, "how many", at_least=1)
    lr: float = option(0.1, "how fast", above=0, at_most=1)
    shift: float = option(0.0, "any number")
    fast: bool = option(False, "or not")
    speed: int = option(1, "how fast then", needs="fast")


PARTS = (Naming, Counting)


def test_flags_override_the_file_and_the_file_the_defaults(tmp_path):
    (tmp_path / "c.toml").write_text('name = "b"\nsteps = 5\nlr = 1\nadapter = ["x", "y"]\n')
    config = read([str(tmp_path / "c.toml"), "--steps", "7", "--fast"], *PARTS)
    assert config[Naming] == Naming("b", "plain", ["x", "y"])
    assert config[Counting] == Counting(steps=7, lr=1.0, fast=True)


def test_a_list_flag_is_repeated_and_values_may_be_joined_by_equals():
    assert read(["--adapter", "p", "--adapter=q-r", "--fast=false"], *PARTS)[Naming].adapter == ["p", "q-r"]


def test_values_are_flat_outside_and_by_part_inside():
    config = read(["--steps", "9"], *PARTS)
    assert config.values["steps"] == config[Counting].steps == 9 and set(config.values) == {
        "name",
        "kind",
        "adapter",
        "steps",
        "lr",
        "shift",
        "fast",
        "speed",
    }
    assert config.replace(steps=2)[Counting].steps == 2 and config[Counting].steps == 9


@pytest.mark.parametrize(
    "argv, words",
    [
        (["--stepz", "1"], "unknown key 'stepz'; did you mean 'steps'"),
        (["--steps", "many"], "--steps must be int, found 'many'"),
        (["--steps"], "--steps needs a value"),
        (["--fast=maybe"], "true or false"),
        (["missing.toml"], "missing.toml"),
        (["--name", "x", "stray"], "found 'stray'"),
        (["--steps", "0"], "--steps must be at least 1, found 0"),
        (["--lr", "0"], "--lr must be above 0 and at most 1, found 0.0"),
        (["--lr", "nan"], "--lr must be above 0 and at most 1, found nan"),
        (["--shift", "inf"], "--shift must be a finite number, found inf"),
        (["--kind", "odd"], "--kind must be one of plain, fancy, found 'odd'"),
        (["--speed", "4"], "--speed has no effect without --fast"),
    ],
)
def test_a_wrong_command_line_is_one_sentence(argv, words):
    with pytest.raises(ValueError, match=words):
        read(argv, *PARTS)


@pytest.mark.parametrize(
    "text, words",
    [
        ("stepz = 1", "c.toml: unknown key 'stepz'; did you mean 'steps'"),
        ('steps = "1"', "steps must be int"),
        ("steps = true", "steps must be int"),
        ('adapter = "full"', "list of strings"),
        ("steps = ", "c.toml"),
        ("steps = -1", "--steps must be at least 1"),
    ],
)
def test_a_wrong_file_is_one_sentence(tmp_path, text, words):
    (tmp_path / "c.toml").write_text(text)
    with pytest.raises(ValueError, match=words):
        read([str(tmp_path / "c.toml")], *PARTS)


def test_toml_written_reads_back_to_the_same_values(tmp_path):
    text = 'quote " back \\ tab \t new\nline del \x7f umlaut \u00e4 snow \u2603'
    config = Config(PARTS, {"name": text, "steps": 2, "lr": 1e-5, "fast": True, "adapter": [text, "b"]})
    (tmp_path / "c.toml").write_text(to_toml(config.values), "utf-8")
    assert read_toml(tmp_path / "c.toml", PARTS) == config.values


def test_a_former_name_is_read_with_one_line_of_notice(tmp_path, capsys):
    assert read(["--title", "x"], *PARTS)[Naming].name == "x"
    assert capsys.readouterr().err == "--title is called --name now; the old name goes in the next release\n"
    (tmp_path / "c.toml").write_text('title = "y"\n')
    assert read_toml(tmp_path / "c.toml", PARTS) == {"name": "y"} and "--title" in capsys.readouterr().err


def test_a_stored_file_may_hold_settings_of_another_version_and_says_nothing(tmp_path, capsys):
    (tmp_path / "c.toml").write_text('title = "y"\ngone = 3\n')
    assert read_toml(tmp_path / "c.toml", PARTS, stored=True) == {"name": "y"} and not capsys.readouterr().err


def test_a_setting_that_nothing_reads_is_refused_with_those_that_do():
    rows = {"a with x": (Naming,), "a with y": (Naming, Counting), "b with x": (Counting,), "c": ()}
    check_unread({"name": "n"}, rows, "a with x")
    for values, chosen, words in (
        ({"name": "n"}, "c", "--name is read by a, not by c"),
        ({"steps": 1}, "a with x", "--steps is read by a with y and b, not by a with x"),
        ({"steps": 1}, "c", "--steps is read by a with y and b, not by c"),
    ):
        with pytest.raises(ValueError, match=words):
            check_unread(values, rows, chosen)


def test_help_has_a_group_for_each_part_and_a_line_for_each_setting():
    page = usage("What it does.", PARTS).splitlines()
    assert page[0] == "What it does." and page.index("Names") < page.index("Numbers")
    assert "  --kind             how (plain | fancy) [plain]" in page
    assert "  --lr               how fast (above 0 and at most 1) [0.1]" in page

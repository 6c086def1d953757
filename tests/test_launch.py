"""Defaults < TOML < flags; a wrong key, type or file is one sentence."""

from dataclasses import dataclass, field

import pytest

import launch


@dataclass
class Config:
    name: str = "a"  # a word
    steps: int = 3  # how many
    lr: float = 0.1  # how fast
    fast: bool = False  # or not
    adapter: list[str] = field(default_factory=lambda: ["full"])  # what trains


def test_flags_override_the_file_and_the_file_the_defaults(tmp_path):
    (tmp_path / "c.toml").write_text('name = "b"\nsteps = 5\nlr = 1\nadapter = ["x", "y"]\n')
    cfg = launch.configure(Config, [str(tmp_path / "c.toml"), "--steps", "7", "--fast"])
    assert cfg == Config("b", 7, 1.0, True, ["x", "y"])


def test_a_list_flag_is_repeated_and_values_may_be_joined_by_equals():
    assert launch.configure(Config, ["--adapter", "p", "--adapter=q-r", "--fast=false"]) == Config(adapter=["p", "q-r"])


@pytest.mark.parametrize(
    "argv, words",
    [
        (["--stepz", "1"], "unknown key 'stepz'; did you mean 'steps'"),
        (["--steps", "many"], "--steps must be int, found 'many'"),
        (["--steps"], "--steps needs a value"),
        (["--fast=maybe"], "true or false"),
        (["missing.toml"], "missing.toml"),
        (["--name", "x", "stray"], "found 'stray'"),
    ],
)
def test_a_wrong_command_line_is_one_sentence(argv, words):
    with pytest.raises(ValueError, match=words):
        launch.configure(Config, argv)


@pytest.mark.parametrize(
    "text, words",
    [
        ("stepz = 1", "c.toml: unknown key 'stepz'; did you mean 'steps'"),
        ('steps = "1"', "steps must be int"),
        ("steps = true", "steps must be int"),
        ('adapter = "full"', "list of strings"),
        ("steps = ", "c.toml"),
    ],
)
def test_a_wrong_file_is_one_sentence(tmp_path, text, words):
    (tmp_path / "c.toml").write_text(text)
    with pytest.raises(ValueError, match=words):
        launch.configure(Config, [str(tmp_path / "c.toml")])


def test_a_config_written_as_toml_reads_back_the_same(tmp_path):
    cfg = Config('a "quoted" \\ word', 9, 3e-5, True, ["lora:rank=8", "norm"])
    (tmp_path / "c.toml").write_text(launch.to_toml(cfg))
    assert launch.configure(Config, [str(tmp_path / "c.toml")]) == cfg


def test_help_shows_each_field_with_its_comment(capsys):
    with pytest.raises(SystemExit) as leaving:
        launch.configure(Config, ["--help"])
    assert leaving.value.code == 0
    shown = capsys.readouterr().out
    assert "--steps" in shown and "how many [3]" in shown

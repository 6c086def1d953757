"""Text, JSON and TOML of others: one way to read each, and the file's name in every error."""

import json

import pytest

from border import parse_json, read_json, read_table, read_text, to_json
from config.option import option
from config.read import read_toml
from data.folders.caption_files import read_sidecar
from data.folders.hierarchy import read_hierarchy
from unet.text.tokenizer import Tokenizer

MARK = b"\xef\xbb\xbf"
POINTER = b"version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 4265146304\n"


class Part:
    """A part of settings."""

    steps: int = option(1, "steps")


def test_a_byte_order_mark_is_passed_over_by_every_reader(tmp_path):
    import dataclasses

    for name, text in {"a.json": '{"x": "y"}', "a.toml": 'x = "y"', "s.toml": "steps = 2", "a.txt": "a nut"}.items():
        (tmp_path / name).write_bytes(MARK + text.encode())
    assert read_text(tmp_path / "a.txt") == "a nut" and read_sidecar(tmp_path / "a.txt")[0] == "a nut"
    assert read_json(tmp_path / "a.json") == read_table(tmp_path / "a.toml") == {"x": "y"}
    assert read_hierarchy(str(tmp_path / "a.json")) == read_hierarchy(str(tmp_path / "a.toml")) == {"x": "y"}
    assert read_toml(tmp_path / "s.toml", [dataclasses.dataclass(Part)]) == {"steps": 2}
    Tokenizer.train(["a nut"] * 2, 520).save(tmp_path / "words")
    for file in (tmp_path / "words").iterdir():
        file.write_bytes(MARK + file.read_bytes().replace(b"\n", b"\r\n"))  # as Windows' editors save it
    assert Tokenizer.from_folder(tmp_path / "words").encode("nut")


@pytest.mark.parametrize("read", [read_text, read_json, read_table, lambda path: read_sidecar(path)])
@pytest.mark.parametrize(
    ("content", "message"),
    [
        (POINTER, r"f.json: a Git LFS pointer of .* expected the 4,265,146,304 bytes .* `git lfs pull`"),
        ("a nut".encode("utf-16"), "f.json: byte 0 is 0xff, which is not UTF-8 .it may be UTF-16."),
        (b"caf\xe9", "f.json: byte 3 is 0xe9, which is not UTF-8"),
    ],
)
def test_what_is_no_text_is_one_sentence_with_the_files_name(tmp_path, read, content, message):
    (tmp_path / "f.json").write_bytes(content)
    with pytest.raises(ValueError, match=message):
        read(tmp_path / "f.json")


def test_a_text_has_a_limit_of_size(tmp_path):
    (tmp_path / "a.txt").write_bytes(b"a" * 101)
    with pytest.raises(ValueError, match="a.txt: more than 100 bytes"):
        read_text(tmp_path / "a.txt", 100)
    assert len(read_text(tmp_path / "a.txt", 101)) == 101


@pytest.mark.parametrize("text", ["{", "[" * 100_000, "1" * 5000, ""])
def test_json_that_is_none(text):
    with pytest.raises(ValueError, match="^here: not valid JSON"):
        parse_json(text, "here")


def test_json_that_is_written_is_read_by_strict_parsers():
    value = {"a": [1.5, float("nan")], "b": {"c": float("-inf")}, "d": (1, True, None, "NaN")}
    text = to_json(value, indent=1)
    assert json.loads(text, parse_constant=pytest.fail) == {
        "a": [1.5, None],
        "b": {"c": None},
        "d": [1, True, None, "NaN"],
    }

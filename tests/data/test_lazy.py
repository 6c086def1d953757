"""Images that are not held: the same numbers as held ones, in this process or in others, and what is said of them."""

import os
import signal

import numpy as np
import pytest
import torch
from PIL import Image

from data import lazy, load, source
from data.lazy import Lazy, Strings, made, workers
from data.source import load_captioned
from data.transforms import Transform
from recipes.images.made_of import made_of


def square(i):
    return np.full((2, 2), i * i, np.uint8)


def end_if_seven(i):
    if i == 7:
        os.kill(os.getpid(), signal.SIGKILL)
    return i


@pytest.fixture
def folder(tmp_path):
    random = np.random.default_rng(0)
    for name in ("hole/a", "hole/b", "good/c", "good/d", "good/e"):
        file = tmp_path / f"{name}.png"
        file.parent.mkdir(exist_ok=True)
        Image.fromarray(random.integers(0, 256, (12, 10, 3), dtype=np.uint8)).save(file)
    (tmp_path / "masks").mkdir()
    for name in ("a", "b"):
        Image.fromarray(np.eye(12, 10, dtype=np.uint8) * 255).save(tmp_path / "masks" / f"{name}.png")
    return tmp_path


@pytest.fixture
def nothing_held(monkeypatch):
    monkeypatch.setattr(source, "HELD", 0)


def test_rows_are_those_of_an_array():
    rows = Lazy(square, lambda i: (i,), (6, 2, 2), np.uint8)
    array = np.stack([square(i) for i in range(6)])
    assert len(rows) == 6 and rows.shape == array.shape and rows.dtype == np.uint8 and rows.nbytes == array.nbytes
    for key in (2, -1, slice(1, 5, 2), np.array([3, 0, 3]), slice(0, 0)):
        assert np.array_equal(rows[key], array[key])
    assert np.array_equal(list(rows), array) and np.array_equal(np.asarray(rows), array)
    assert np.array_equal(np.concatenate(list(lazy.blocks(rows))), array)
    with pytest.raises(IndexError):
        rows[6]


@pytest.mark.parametrize("name", ["photographs", "generated:hazelnut/few/2"])
def test_a_set_that_is_not_held_is_the_same_set(folder, monkeypatch, name):
    where = str(folder) if name == "photographs" else name
    held = load(where, Transform(8))
    monkeypatch.setattr(source, "HELD", 0)
    seen = load(where, Transform(8))
    assert isinstance(seen.pixels, Lazy) and isinstance(seen.masks, Lazy)
    assert np.array_equal(seen.pixels, held.pixels) and np.array_equal(seen.masks, held.masks) and held.masks.any()
    assert torch.equal(seen.labels, held.labels) and seen.names == held.names and seen.classes == held.classes
    assert made_of(seen, where, {}) == made_of(held, where, {})


def test_processes_make_the_same_rows_in_the_same_order(monkeypatch):
    monkeypatch.setattr(lazy, "MANY", 1)
    monkeypatch.setattr(lazy, "BLOCK", 20)
    monkeypatch.setattr(lazy, "processors", lambda: 2)
    rows = Lazy(square, lambda i: (i % 16,), (50, 2, 2), np.uint8)
    with workers(50) as pool:
        assert pool is not None
    assert np.array_equal(list(rows), rows[:])


def test_a_worker_that_dies_is_said(monkeypatch):
    monkeypatch.setattr(lazy, "MANY", 1)
    monkeypatch.setattr(lazy, "processors", lambda: 2)
    with workers(50) as pool, pytest.raises(OSError, match="ended from outside"):
        list(made(end_if_seven, ((i,) for i in range(50)), pool))


def test_all_bad_files_are_named_though_nothing_is_held(folder, nothing_held):
    (folder / "good" / "x.png").write_bytes(b"no image")
    (folder / "good" / "y.png").write_bytes(b"")
    with pytest.raises(ValueError, match=r"2 of 7 images cannot be used:\n.*x.png.*\n.*y.png"):
        load(str(folder), Transform(8))


def test_captioned_images_need_not_be_held(folder, nothing_held):
    images, captions = load_captioned(str(folder), Transform(8), "a {class}")
    assert (
        isinstance(images.pixels, Lazy) and [item.caption for item in captions.items] == ["a good"] * 3 + ["a hole"] * 2
    )


def test_strings_are_a_sequence_of_texts_and_small():
    texts = ["", "a/b.png", "grün", "a\udcffb", "x" * 50]
    strings = Strings(texts)
    assert strings == texts and strings[-1] == "x" * 50 and strings[1:3] == texts[1:3] and "grün" in strings
    assert strings[torch.tensor(2)] == "grün" and strings.index("grün") == 2 and len(Strings([])) == 0
    many = Strings(f"class_{i % 10:05d}/img_{i:06d}.jpg" for i in range(10_000))
    assert (len(many.content) + many.ends.nbytes) / len(many) < 40  # bytes an image; a list of them takes 90

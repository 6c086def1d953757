"""Folders of samples: names that files may have, and reading them back."""

import numpy as np
import pytest

from data.output.grid import save_image
from data.output.samples import file_names, read_samples, smallest_side
from data.transforms import Transform


def write(folder, *names, side=8):
    for value, name in enumerate(names):
        save_image(folder / f"{name}.png", np.full((side, side, 3), value, np.uint8))


def test_names_are_plain_and_different():
    assert file_names(["hazelnut/crack", "a b", "a/b", "!"]) == ["hazelnut_crack", "001_a_b", "002_a_b", "003_"]


def test_the_columns_are_found_again_and_the_overview_is_not(tmp_path):
    write(tmp_path, "a_hole_000", "a_hole_001", "a_crack_000")
    write(tmp_path, "grid", side=32)
    found = read_samples(tmp_path, Transform(8), ["a/hole", "a/crack"])
    assert found.classes == ["a/hole", "a/crack"] and found.labels.tolist() == [1, 0, 0]
    assert found.pixels[:, 0, 0, 0].tolist() == [2, 0, 1]  # in the order of their names
    assert read_samples(tmp_path, Transform(8)).classes == ["a_crack", "a_hole"]
    assert smallest_side(tmp_path) == 8


def test_folders_are_classes(tmp_path):
    write(tmp_path / "crack", "x", "y")
    write(tmp_path / "hole", "z", side=6)
    found = read_samples(tmp_path, Transform(8))
    assert found.classes == ["crack", "hole"] and found.labels.tolist() == [0, 0, 1]
    assert smallest_side(tmp_path) == 6


def test_what_is_no_folder_of_these_samples(tmp_path):
    with pytest.raises(ValueError, match="expected samples such as a_000.png, found no image"):
        read_samples(tmp_path, Transform(8), ["a"])
    with pytest.raises(ValueError, match="expected images, found none"):
        smallest_side(tmp_path)
    write(tmp_path, "a_000", "b_000")
    with pytest.raises(ValueError, match="expected samples of a; b_000.png belongs to none of them"):
        read_samples(tmp_path, Transform(8), ["a"])
    with pytest.raises(ValueError, match="expected samples of a, b, c; there is none of 'c'"):
        read_samples(tmp_path, Transform(8), ["a", "b", "c"])

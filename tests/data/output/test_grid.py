import numpy as np
import pytest
from PIL import Image

from data.output.grid import grid, save_image, sections


def square(colour, side=64):
    return np.full((side, side, 3), colour, np.uint8)


RED, BLUE = (255, 0, 0), (0, 0, 255)


def count(picture, colour):
    return int((np.asarray(picture) == colour).all(-1).sum())


def test_columns_are_classes_and_small_images_grow_by_a_whole_factor():
    picture = grid({"crack": [square(RED), square(RED)], "hole": [square(BLUE), square(BLUE)]})
    assert count(picture, RED) == count(picture, BLUE) == 2 * 128 * 128
    red = np.argwhere((np.asarray(picture) == RED).all(-1))
    blue = np.argwhere((np.asarray(picture) == BLUE).all(-1))
    assert red[:, 1].max() < blue[:, 1].min() and red[:, 0].min() == blue[:, 0].min() > 14  # names are above


def test_pixels_are_repeated_and_never_blended():
    noise = np.random.default_rng(0).integers(0, 200, (16, 16, 3), dtype=np.uint8)
    picture = np.asarray(grid({"a": [noise]}, min_side=32))
    assert (picture[-4 - 32 : -4, 4 : 4 + 32] == noise.repeat(2, 0).repeat(2, 1)).all()
    assert count(grid({"a": [square(RED, 200)]}), RED) == 200 * 200  # large: as it is


def test_a_short_column_leaves_its_cells_empty_and_sizes_may_differ():
    picture = grid({"a": [square(RED), square(RED)], "b": [square(BLUE, 32)], "c": []})
    assert count(picture, RED) == 2 * 128 * 128 and count(picture, BLUE) == 64 * 64


def test_long_names_wrap_and_widen_the_column_when_they_cannot():
    plain = grid({"a": [square(RED)]})
    assert grid({"metal_nut/contamination spots": [square(RED)]}).height > plain.height
    assert grid({"x" * 40: [square(RED)]}).width > 2 * plain.width


def test_row_labels_stand_left_of_the_rows():
    plain, labelled = grid({"a": [square(RED)]}), grid({"a": [square(RED)]}, rows=["step 100"])
    assert labelled.width > plain.width and labelled.height == plain.height
    with pytest.raises(ValueError, match="2 row labels for 1 rows"):
        grid({"a": [square(RED)]}, rows=["x", "y"])


@pytest.mark.parametrize(
    "columns, reason",
    [
        ({}, "at least one image"),
        ({"a": []}, "at least one image"),
        ({"a": [np.zeros((4, 4, 3))]}, r"column 'a': expected uint8 \(H, W, 3\); found float64"),
        ({"a": [np.zeros((4, 4), np.uint8)]}, r"found uint8 \(4, 4\)"),
    ],
)
def test_wrong_columns_are_refused(columns, reason):
    with pytest.raises(ValueError, match=reason):
        grid(columns)


def test_sections_stand_beside_or_above_each_other():
    parts = {"before": grid({"a": [square(RED)]}), "after": grid({"a": [square(BLUE)]})}
    beside, stacked = sections(parts), sections(parts, beside=False)
    assert beside.width > 2 * 128 and stacked.height > 2 * 128
    assert count(beside, RED) == count(stacked, BLUE) == 128 * 128
    assert beside.width > stacked.width and stacked.height > beside.height
    with pytest.raises(ValueError, match="no sections"):
        sections({})


def test_save_image_writes_a_whole_png_and_nothing_else(tmp_path):
    noise = np.random.default_rng(0).integers(0, 256, (5, 7, 3), dtype=np.uint8)
    save_image(tmp_path / "run" / "a.png", noise)
    save_image(tmp_path / "run" / "b.png", Image.fromarray(noise))
    assert (np.asarray(Image.open(tmp_path / "run" / "b.png")) == noise).all()
    assert sorted(path.name for path in (tmp_path / "run").iterdir()) == ["a.png", "b.png"]
    with pytest.raises(ValueError, match="written as .png"):
        save_image(tmp_path / "a.jpg", noise)
    with pytest.raises(ValueError, match="found float64"):
        save_image(tmp_path / "a.png", noise / 255)

"""The square around a mask, and the windows of a folder of photographs that are trained on."""

import numpy as np
import pytest

from data import load
from data.output.grid import save_image
from data.transforms import Transform
from data.window import window, windows


def mask(box, shape=(40, 60)):
    values = np.zeros(shape, bool)
    values[box] = True
    return values


@pytest.mark.parametrize(
    ("box", "ratio", "square"),
    [
        (np.s_[10:14, 20:30], 2, np.s_[2:22, 15:35]),
        (np.s_[10:14, 20:30], 1, np.s_[7:17, 20:30]),
        (np.s_[0:4, 56:60], 2, np.s_[0:8, 52:60]),  # moved in where it would leave the photograph
        (np.s_[10:14, 20:30], 0, np.s_[0:40, 5:45]),  # the largest square, around the defect
        (np.s_[0:0, 0:0], 2, np.s_[0:40, 10:50]),  # no defect: the middle
        (np.s_[10:14, 20:30], 50, np.s_[0:40, 5:45]),  # no larger than there is room
    ],
)
def test_the_square_lies_around_the_box_and_inside_the_photograph(box, ratio, square):
    assert window(mask(box), ratio) == square


def test_a_mask_that_no_square_holds_is_cut_at_both_ends():
    assert window(mask(np.s_[3:5, 2:57]), 2) == np.s_[0:40, 10:50]


def test_a_photograph_without_a_mask_is_used_at_the_scale_of_the_others():
    """Windows of 8, 16 and 40 of 40 pixels: the median is 0.4 of the short side, anywhere, and there again."""
    cut = windows([mask(np.s_[:4, :4]), mask(np.s_[:8, :2]), mask(np.s_[:40, :1]), mask(np.s_[:0])], 2)
    assert cut.share == 0.4
    squares = [cut.square(np.zeros((100, 50), bool), f"{i}.png") for i in range(50)]
    assert squares == [cut.square(np.zeros((100, 50), bool), f"{i}.png") for i in range(50)]
    assert {(rows.stop - rows.start, columns.stop - columns.start) for rows, columns in squares} == {(20, 20)}
    assert min(rows.start for rows, _ in squares) < 20 and max(rows.stop for rows, _ in squares) > 80


def test_masks_without_a_pixel_have_no_window():
    with pytest.raises(ValueError, match="no image has a mask, so there is nothing for a window to lie around"):
        windows([mask(np.s_[:0])], 2)


@pytest.fixture
def parts(tmp_path):
    """A photograph with a spot of 10 pixels in 200, and a good one."""
    photograph, spot = np.full((200, 300, 3), 90, np.uint8), np.zeros((200, 300), np.uint8)
    spot[50:60, 40:50] = 255
    photograph[spot > 0] = 250
    save_image(tmp_path / "nut" / "test" / "hole" / "000.png", photograph)
    save_image(tmp_path / "nut" / "test" / "good" / "000.png", np.full((200, 300, 3), 90, np.uint8))
    save_image(tmp_path / "nut" / "ground_truth" / "hole" / "000_mask.png", spot)
    return tmp_path


@pytest.mark.parametrize("held", [2**25, 0])
def test_a_small_defect_fills_its_share_of_the_window(parts, monkeypatch, held):
    monkeypatch.setattr("data.source.HELD", held)  # kept in memory, and made anew each time
    whole, cut = (load(str(parts), Transform(32, window=ratio)) for ratio in (0, 2))
    good, hole = (cut.labels == cut.classes.index(name) for name in ("nut/good", "nut/hole"))
    rows = np.flatnonzero(hole)
    assert whole.masks[rows].mean() < 0.01 and cut.masks[rows].mean() == 0.25
    assert (cut.pixels[rows][cut.masks[rows]] > 200).mean() > 0.9 and (cut.pixels[np.flatnonzero(good)] == 90).all()


def test_what_a_window_cuts_off_a_long_mask_is_said(parts, capsys):
    long = np.zeros((200, 300), np.uint8)
    long[90:100, :] = 255
    save_image(parts / "nut" / "ground_truth" / "hole" / "000_mask.png", long)
    images = load(str(parts), Transform(32, window=2))
    assert images.masks.any(2).any(1).sum() == 1
    assert (
        "of 1 masks these are cut away by the square crop, or by 32 pixels a side: 1 in part" in capsys.readouterr().err
    )


def test_what_no_window_can_be_cut_from_is_refused(parts):
    with pytest.raises(ValueError, match="generated ones are made at their size"):
        load("generated:bottle/few/1", Transform(32, window=2))
    with pytest.raises(ValueError, match="to its middle or to a window around its mask, not both"):
        Transform(32, crop=100, window=2)

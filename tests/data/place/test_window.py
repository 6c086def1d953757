"""The square around a mask, and the paste that leaves every pixel outside of it."""

import numpy as np
import pytest

from data.place.window import pasted, softened, window


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


def test_a_mask_that_no_square_holds_is_refused():
    with pytest.raises(ValueError, match="a mask of 55 pixels does not fit in the largest square, of 40"):
        window(mask(np.s_[3:5, 2:57]), 2)


def test_the_edge_lies_inside_and_thin_parts_reach_one():
    shape = mask(np.s_[5:15, 5:15]) | mask(np.s_[30, 10:50])
    alpha = softened(shape)
    assert (alpha[~shape] == 0).all() and (alpha[shape] > 0).all()
    assert alpha[5, 10] == pytest.approx(1 / 3) and alpha[7, 10] == 1 and (alpha[30, 10:50] == 1).all()
    assert (softened(np.ones((8, 8), bool)) == 1).all() and (softened(np.zeros((8, 8), bool)) == 0).all()


@pytest.mark.parametrize("side", [20, 32])
def test_outside_of_the_mask_not_one_pixel_differs(side):
    rng = np.random.default_rng(0)
    photograph, drawn = (rng.integers(0, 256, shape, np.uint8) for shape in ((40, 60, 3), (side, side, 3)))
    shape = mask(np.s_[10:14, 20:30])
    result = pasted(drawn, shape, photograph, window(shape, 2))
    assert (result[~shape] == photograph[~shape]).all() and (result[shape] != photograph[shape]).mean() > 0.9
    assert result.dtype == np.uint8


def test_a_whole_square_is_the_drawn_one():
    drawn = np.random.default_rng(0).integers(0, 256, (16, 16, 3), np.uint8)
    whole = np.ones((16, 16), bool)
    assert (pasted(drawn, whole, np.zeros_like(drawn), window(whole)) == drawn).all()

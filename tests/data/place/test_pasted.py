"""The paste that leaves every pixel outside of a mask."""

import numpy as np
import pytest

from data.place.pasted import pasted, softened
from data.window import window


def mask(box, shape=(40, 60)):
    values = np.zeros(shape, bool)
    values[box] = True
    return values


def test_the_edge_lies_inside_and_thin_parts_have_none():
    shape = mask(np.s_[2:26, 2:26]) | mask(np.s_[30:34, 10:50]) | mask(np.s_[5:15, 45:55])
    alpha = softened(shape)
    assert (alpha[~shape] == 0).all() and (alpha[shape] > 0).all()
    assert alpha[2, 12] == pytest.approx(1 / 3) and alpha[4, 12] == 1  # 12 deep
    assert alpha[5, 50] == pytest.approx(1 / 1.25) and alpha[6, 50] == 1  # 5 deep
    assert (alpha[30:34, 10:50] == 1).all()
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

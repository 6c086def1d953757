"""What a drawn defect changed: Lab, hysteresis inside the asked mask, and the scores."""

import numpy as np
import pytest

from data.place.changed import changed, lab

ASKED = np.zeros((32, 32), bool)
ASKED[8:24, 8:24] = True
GOOD = np.full((32, 32, 3), 120, np.uint8)


@pytest.mark.parametrize(
    ("colour", "expected"),
    [
        ((255, 255, 255), (100, 0, 0)),
        ((0, 0, 0), (0, 0, 0)),
        ((255, 0, 0), (53.24, 80.09, 67.20)),
        ((0, 0, 255), (32.30, 79.19, -107.86)),
        ((119, 119, 119), (50.03, 0, 0)),
    ],
)
def test_lab_of_known_colours(colour, expected):
    assert lab(np.array(colour, np.uint8)) == pytest.approx(expected, abs=0.05)


def test_the_mask_is_what_changed_inside_the_asked_one():
    drawn = GOOD.copy()
    drawn[12:20, 4:16] = 30  # in part outside
    found = changed(drawn, GOOD, ASKED)
    assert not (found.mask & ~ASKED).any() and found.mask[12:20, 8:16].all()
    assert 64 / 256 <= found.iou < 120 / 256 and found.iou == found.mask.sum() / 256
    plain = np.linalg.norm(lab(drawn) - lab(GOOD), axis=-1)[ASKED].mean()
    assert found.difference == pytest.approx(plain, rel=0.1)


def test_a_weak_change_counts_only_where_it_joins_a_strong_one():
    drawn = GOOD.copy()
    drawn[10:22, 10:14] = 92  # about 11 units of Lab
    drawn[10:22, 16:22] = 92
    drawn[14:18, 16:22] = 60
    found = changed(drawn, GOOD, ASKED).mask
    assert not found[10:22, 9:14].any() and found[11:21, 17:21].all()


def test_nothing_changed_and_nothing_asked():
    assert changed(GOOD, GOOD, ASKED)[1:] == (0, 0) and not changed(GOOD, GOOD, ASKED).mask.any()
    assert changed(GOOD + 90, GOOD, np.zeros_like(ASKED))[1:] == (0, 0)
    assert changed(GOOD + 90, GOOD, np.ones_like(ASKED)).iou == 1

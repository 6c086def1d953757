"""AP, AUROC, F1-max and PRO on maps whose values are known, and against scikit-learn where it is installed."""

import numpy as np
import pytest
from scipy import ndimage

from metrics.statistics.pixels import best_threshold, f1, per_region_overlap, pixel_scores

MASK = np.zeros((1, 4, 4), bool)
MASK[0, :2, :2] = True  # 4 of 16 pixels


def test_a_perfect_map_has_one_everywhere():
    assert pixel_scores(MASK.astype(float), MASK) == pytest.approx({"ap": 1, "auroc": 1, "f1_max": 1, "pro": 1})


def test_a_map_that_says_nothing_has_the_share_of_the_defects():
    found = pixel_scores(np.zeros(MASK.shape), MASK)
    assert found["ap"] == 0.25 and found["auroc"] == 0.5 and found["f1_max"] == pytest.approx(0.4)
    assert found["pro"] == pytest.approx(0.15)  # the diagonal up to 0.3


def test_a_map_of_three_levels_by_hand():
    """Two of four pixels at the top, then one wrong, then the other two with three wrong ones."""
    scores = np.zeros(MASK.shape)
    scores[0, 0, :2] = 3
    scores[0, 3, 3] = 2
    scores[0, 1, :2] = scores[0, 2, :3] = 1
    found = pixel_scores(scores, MASK)
    assert found["ap"] == pytest.approx(0.5 * 1 + 0.5 * 4 / 8)
    assert found["f1_max"] == pytest.approx(2 * 0.5 * 1 / 1.5)
    assert found["auroc"] == pytest.approx(0.5 / 12 + 3 / 12 * 0.75 + 8 / 12)
    assert best_threshold(scores, MASK) == 3 and f1(scores, MASK, 3) == pytest.approx(2 / 3)


def test_a_small_region_counts_as_a_large_one():
    """The large defect is found and the small one is not: nearly all of the pixels, half of the regions."""
    masks = np.zeros((1, 40, 40), bool)
    masks[0, :20, :20] = masks[0, 39, 39] = True
    scores = masks.astype(float)
    scores[0, 39, 39] = -1
    assert per_region_overlap(scores, masks) == pytest.approx(0.5, abs=0.01)
    assert pixel_scores(scores, masks)["ap"] > 0.99


def brute(scores, masks, limit=0.3):
    """PRO threshold by threshold."""
    points = [(0.0, 0.0)]
    for threshold in np.unique(scores)[::-1]:
        found, shares = scores >= threshold, []
        for hit, mask in zip(found, masks):
            parts, count = ndimage.label(mask, np.ones((3, 3)))
            shares += [hit[parts == k].mean() for k in range(1, count + 1)]
        points.append(((found & ~masks).sum() / (~masks).sum(), np.mean(shares)))
    x, y = np.array(points).T
    grid = np.linspace(0, limit, 20001)
    return np.trapezoid(np.interp(grid, x, y), grid) / limit


@pytest.mark.parametrize("seed", range(3))
def test_pro_is_its_definition(seed):
    rng = np.random.default_rng(seed)
    masks = ndimage.binary_opening(rng.random((3, 24, 24)) > 0.4, np.ones((1, 2, 2)))
    scores = np.round(rng.normal(size=masks.shape) + masks, 1)
    assert per_region_overlap(scores, masks) == pytest.approx(brute(scores, masks), abs=2e-3)


@pytest.mark.parametrize("seed", range(3))
def test_scikit_learn_agrees(seed):
    sklearn = pytest.importorskip("sklearn.metrics")
    rng = np.random.default_rng(seed)
    masks = rng.random((2, 30, 30)) > 0.9
    scores = np.round(rng.normal(size=masks.shape) + masks, 1)
    found = pixel_scores(scores, masks)
    assert found["ap"] == pytest.approx(sklearn.average_precision_score(masks.ravel(), scores.ravel()))
    assert found["auroc"] == pytest.approx(sklearn.roc_auc_score(masks.ravel(), scores.ravel()))
    precision, recall, thresholds = sklearn.precision_recall_curve(masks.ravel(), scores.ravel())
    values = 2 * precision * recall / np.maximum(precision + recall, 1e-12)
    assert found["f1_max"] == pytest.approx(values.max())
    assert best_threshold(scores, masks) == pytest.approx(thresholds[values.argmax()])


@pytest.mark.parametrize(
    ("scores", "masks", "fault"),
    [
        (np.zeros((1, 4, 4)), np.zeros((1, 4, 4), bool), "found 0 of 16 with a defect"),
        (np.zeros((4, 4)), np.zeros((4, 4), bool), r"expected scores and masks \(N, H, W\)"),
        (np.full((1, 4, 4), np.nan), MASK, "found NaN"),
    ],
)
def test_what_has_no_answer_is_refused(scores, masks, fault):
    with pytest.raises(ValueError, match=fault):
        pixel_scores(scores, masks)

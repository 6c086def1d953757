"""How well scores of pixels find defects: AP, AUROC, F1-max and PRO, over all pixels of all images.

    precision, recall, false positive rate of {score >= threshold}, for every threshold that is a score

    ap       sum_n (recall_n - recall_{n-1}) precision_n                  steps, not trapezoids, as scikit-learn
    auroc    area under recall over the false positive rate               ties count half
    f1_max   max 2 precision recall / (precision + recall)                of the best threshold: a bound, no result
    pro      area under the mean share of each connected defect that is found, over the false positive rate up to
             LIMIT, divided by LIMIT (Bergmann et al. 2020, per-region overlap): a small defect counts as a large one

F1-max chooses its threshold on the images that it is computed on. To report an F1, choose a threshold elsewhere, `f1`.
"""

import numpy as np
import scipy

LIMIT = 0.3  # of the false positive rate, in pro
EIGHT = np.ones((3, 3), int)


def pixel_scores(scores: np.ndarray, masks: np.ndarray) -> dict[str, float]:
    """ap, auroc, f1_max and pro of scores (N, H, W), higher where a defect is likelier, and masks (N, H, W) bool.

    Raises ValueError for other shapes, for a score that is no number, and for masks that are all empty or all full.
    """
    if scores.shape != masks.shape or scores.ndim != 3:
        raise ValueError(f"expected scores and masks (N, H, W), found {scores.shape} and {masks.shape}")
    if not np.isfinite(scores).all():
        raise ValueError("expected scores that are numbers, found NaN or infinity")
    if masks.all() or not masks.any():
        raise ValueError(f"masks need pixels of both kinds, found {int(masks.sum())} of {masks.size} with a defect")
    found, false, last = counts(scores.ravel(), masks.ravel())
    found, false = found[last], false[last]  # of distinct scores
    recall, precision = found / found[-1], found / (found + false)
    rate = false / false[-1]
    trapezoids = np.diff(rate, prepend=0) * (recall + np.concatenate([[0], recall[:-1]])) / 2
    return {
        "ap": float((np.diff(recall, prepend=0) * precision).sum()),
        "auroc": float(trapezoids.sum()),
        "f1_max": float((2 * precision * recall / np.maximum(precision + recall, 1e-12)).max()),
        "pro": per_region_overlap(scores, masks),
    }


def counts(scores: np.ndarray, masks: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """By falling score: how many pixels of defects, and of none, score so much or more; the last places of scores."""
    order, last = ranking(scores)
    hits = masks[order].astype(np.int64)
    return np.cumsum(hits), np.cumsum(1 - hits), last


def ranking(scores: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Scores (P,) -> their places by falling score, and whether each is the last of its value."""
    order = np.argsort(-scores, kind="stable")
    ranked = scores[order]
    return order, np.concatenate([ranked[1:] != ranked[:-1], [True]])


def per_region_overlap(scores: np.ndarray, masks: np.ndarray, limit: float = LIMIT) -> float:
    """The module's pro. scores (N, H, W), masks (N, H, W) bool."""
    weights = np.zeros(masks.shape)  # of a pixel of a region: 1 / (its area * number of regions)
    regions = 0
    for weight, mask in zip(weights, masks):
        parts, count = scipy.ndimage.label(mask, EIGHT)
        weight[mask] = 1 / np.bincount(parts.ravel())[parts[mask]]
        regions += count
    order, last = ranking(scores.ravel())
    overlap = np.cumsum(weights.ravel()[order])[last] / regions
    rate = np.cumsum(~masks.ravel()[order])[last] / (~masks).sum()
    rate, overlap = np.concatenate([[0], rate]), np.concatenate([[0], overlap])
    inside = rate < limit
    x = np.concatenate([rate[inside], [limit]])
    y = np.concatenate([overlap[inside], [np.interp(limit, rate, overlap)]])
    return float(np.trapezoid(y, x) / limit)


def f1(scores: np.ndarray, masks: np.ndarray, threshold: float) -> float:
    """F1 of the pixels whose score is at least a threshold that was chosen elsewhere."""
    found = scores >= threshold
    return float(2 * (found & masks).sum() / max(int(found.sum() + masks.sum()), 1))


def best_threshold(scores: np.ndarray, masks: np.ndarray) -> float:
    """The threshold with the best F1 on these images: to be chosen on others than those that it is reported on."""
    found, false, last = counts(scores.ravel(), masks.ravel())
    value = np.where(last, 2 * found / (found + false + masks.sum()), -1)
    return float(np.sort(scores.ravel())[::-1][value.argmax()])

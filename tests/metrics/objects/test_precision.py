"""Boxes and average precision, against boxes made by hand."""

import numpy as np
import pytest
import torch

from metrics.objects.boxes import boxes_of, giou, iou
from metrics.objects.precision import average_precision, precisions

LEFT, RIGHT, FAR = [0.0, 0, 10, 10], [20.0, 0, 30, 10], [50.0, 50, 60, 60]


def found(*pairs):
    """(box, confidence)... of one image."""
    return torch.tensor([box for box, _ in pairs]).view(-1, 4), torch.tensor([p for _, p in pairs])


def test_overlaps_by_hand():
    a, b = torch.tensor([LEFT]), torch.tensor([[5.0, 0, 15, 10], LEFT, FAR])
    assert iou(a, b).tolist() == [pytest.approx([50 / 150, 1, 0])]
    assert giou(a[0], b).tolist() == pytest.approx([1 / 3, 1, -(3600 - 200) / 3600])  # no box is around the first pair
    assert iou(torch.tensor([[10.0, 10, 0, 0]]), a).item() == 0  # turned inside out


def test_the_boxes_of_a_mask_are_those_of_its_parts():
    mask = np.zeros((8, 10), bool)
    mask[1:3, 2:6], mask[5:, 7:] = True, True
    assert boxes_of(mask).tolist() == [[2, 1, 6, 3], [7, 5, 10, 8]]
    assert boxes_of(np.zeros((4, 4))).shape == (0, 4)


def test_average_precision_by_hand():
    """Right, wrong, right of two boxes: precision 1, 1/2, 2/3 at recall 1/2, 1/2, 1."""
    truths = [torch.tensor([LEFT, RIGHT])]
    detections = found((LEFT, 0.9), (FAR, 0.8), (RIGHT, 0.7))
    assert average_precision([detections], truths) == pytest.approx(0.5 * 1 + 0.5 * 2 / 3)
    assert average_precision([found((LEFT, 0.9), (RIGHT, 0.7), (FAR, 0.1))], truths) == 1
    assert average_precision([found((RIGHT, 0.7))], truths) == 0.5
    assert average_precision([found()], truths) == 0


def test_the_envelope_takes_the_best_precision_at_that_recall_or_more():
    """Wrong, right, right of two: precision 0, 1/2, 2/3; both recalls stand with 2/3."""
    detections = found((FAR, 0.9), (LEFT, 0.8), (RIGHT, 0.7))
    assert average_precision([detections], [torch.tensor([LEFT, RIGHT])]) == pytest.approx(2 / 3)


def test_a_box_is_found_once():
    detections = found((LEFT, 0.9), (LEFT, 0.8), (RIGHT, 0.7))
    assert average_precision([detections], [torch.tensor([LEFT, RIGHT])]) == pytest.approx(0.5 + 0.5 * 2 / 3)


def test_confidences_are_compared_across_images():
    """The surest detection lies in an image without an object."""
    truths = [torch.tensor([LEFT]), torch.zeros(0, 4)]
    assert average_precision([found((LEFT, 0.5)), found((LEFT, 0.6))], truths) == 0.5
    assert average_precision([found((LEFT, 0.5)), found((LEFT, 0.4))], truths) == 1


def test_the_mean_over_thresholds():
    """IoU 0.6 passes 0.50, 0.55 and 0.60 of the ten."""
    numbers = precisions([found(([0.0, 0, 10, 6], 0.9))], [torch.tensor([LEFT])])
    assert numbers == {"ap_50": 1.0, "ap_50_95": pytest.approx(0.3)}


def test_what_cannot_be_measured_is_refused():
    with pytest.raises(ValueError, match="one box at least, found 1 and 1 images with 0 boxes"):
        average_precision([found((LEFT, 0.9))], [torch.zeros(0, 4)])

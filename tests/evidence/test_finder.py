"""The finder of defects: how its overlap with masks is counted, and that it learns and is read back."""

import numpy as np
import pytest
import torch

from data import load
from data.transforms import Transform, to_tensor
from evidence.tools import finder


def test_overlap_with_the_masks():
    """A finder that answers the red channel, which lies in the mask of one of two images."""

    def red(x):
        return x[:, 0]

    masks = np.zeros((2, 16, 16), bool)
    masks[:, :4, :4] = True
    pixels = np.zeros((2, 16, 16, 3), np.uint8)
    pixels[0, :4, :4] = 255  # all of the mask
    pixels[1, 8:12, :4] = 255  # elsewhere
    assert finder.overlap(red, pixels, masks) == (0.5, 0.5)
    pixels[1] = 0
    pixels[1, 2:6, :4] = 255  # half of it, and as much beside it
    iou, hit = finder.overlap(red, pixels, masks)
    assert iou == pytest.approx((1 + 1 / 3) / 2) and hit == 1
    assert finder.share_near(masks) == 36 / 256


def test_the_finder_learns_where_defects_are_and_is_read_back(tmp_path):
    path = tmp_path / "finder.safetensors"
    torch.manual_seed(1)
    network = finder.trained_finder("hazelnut", path, 60, 6)
    images = load("generated:hazelnut/test/4", Transform(64))
    marked = images.labels > 0
    with torch.no_grad():
        logits = network(to_tensor(images.pixels))
    inside = logits[torch.from_numpy(images.masks)].mean()
    assert inside > logits[~torch.from_numpy(images.masks)].mean() + 0.2 and marked.any()
    again = finder.trained_finder("hazelnut", path, 60, 6)
    with torch.no_grad():
        assert torch.equal(again(to_tensor(images.pixels)), logits)

"""Sources of images: what a folder with masks becomes, and masks that do not belong."""

import numpy as np
import pytest
from PIL import Image

from data import load
from data.transforms import Transform


def product(root, mask_size=(40, 30)):
    """An MVTec tree: good has no masks, hole has one image with its mask in the upper left quarter."""
    for folder in ("train/good", "test/hole", "ground_truth/hole"):
        (root / folder).mkdir(parents=True)
    Image.new("RGB", (40, 30), "grey").save(root / "train/good/0.png")
    Image.new("RGB", (40, 30), "grey").save(root / "test/hole/0.png")
    mask = np.zeros(mask_size[::-1], np.uint8)
    mask[:15, :20] = 255
    Image.fromarray(mask).save(root / "ground_truth/hole/0_mask.png")
    return root


def test_masks_are_cropped_and_resized_with_their_images(tmp_path):
    images = load(str(product(tmp_path / "nut")), Transform(10))  # the middle 30 of 40 columns, then a third
    assert images.classes == ["nut/good", "nut/hole"] and images.masks.shape == (2, 10, 10)
    expected = np.zeros((10, 10), bool)
    expected[:5, :5] = True
    assert not images.masks[images.labels == 0].any() and (images.masks[images.labels == 1] == expected).all()


def test_a_folder_without_masks_has_none(tmp_path):
    for name in "ab":
        (tmp_path / name).mkdir()
        Image.new("RGB", (8, 8)).save(tmp_path / name / "0.png")
    assert load(str(tmp_path), Transform(8)).masks is None


def test_a_mask_of_another_size_names_both_files(tmp_path):
    with pytest.raises(
        ValueError,
        match=r"0_mask.png: a mask is as large as its image; .*test/hole/0.png is 40x30, "
        r"the mask 20x30",
    ):
        load(str(product(tmp_path / "nut", mask_size=(20, 30))), Transform(8))

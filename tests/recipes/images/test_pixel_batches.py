"""Batches of pixels, the variants of the settings, and which images are held out."""

import numpy as np
import pytest
import torch
from PIL import Image

from config.training import Images
from data import ImageSet
from recipes.images.pixels import pixel_batches, train_and_val


@pytest.fixture
def images():
    pixels = np.random.default_rng(0).integers(0, 256, (3, 4, 4, 3), dtype=np.uint8)
    return ImageSet(pixels, torch.tensor([1, 0, 1]), ["a", "b"], ["0", "1", "2"])


def plain(pixels):
    return torch.from_numpy(pixels).permute(2, 0, 1) / 127.5 - 1


@pytest.mark.parametrize(
    "flips, rotations, count", [("none", "0", 1), ("h", "0", 2), ("hv", "0,90,180,270", 8), ("none", "-5,0,5", 3)]
)
def test_variants_of_the_settings(flips, rotations, count):
    assert len(Images(flips=flips, rotations=rotations).variants()) == count


def test_the_first_variant_is_the_plain_image():
    """What is held out is seen upright: recipes take the first variant for it."""
    first = Images().variants()[0]
    assert not first.hflip and not first.vflip and first.degrees == 0


def test_rotations_are_numbers():
    with pytest.raises(ValueError, match="rotations must be degrees with commas between, found '0;90'"):
        Images(rotations="0;90").variants()


def test_a_batch_holds_the_asked_images_in_order(images):
    batch = pixel_batches(images, Images(flips="none", rotations="0").variants())
    got = batch(torch.tensor([2, 0, 2]), torch.Generator())
    assert got["x"].shape == (3, 3, 4, 4) and got["y"].tolist() == [1, 1, 1]
    assert torch.allclose(got["x"], torch.stack([plain(images.pixels[i]) for i in (2, 0, 2)]))


def test_every_variant_is_drawn_and_the_generator_decides(images):
    batch = pixel_batches(images, Images(flips="h", rotations="0").variants())
    index = torch.zeros(40).long()
    x = batch(index, torch.Generator().manual_seed(3))["x"]
    upright = plain(images.pixels[0])
    same = [torch.allclose(one, upright) for one in x]
    assert 5 < sum(same) < 35
    assert all(torch.allclose(one, upright if is_same else upright.flip(-1)) for one, is_same in zip(x, same))
    assert torch.equal(x, batch(index, torch.Generator().manual_seed(3))["x"])
    assert not torch.equal(x, batch(index, torch.Generator().manual_seed(4))["x"])


def test_generated_images_are_held_out_by_themselves_and_folders_are_not(tmp_path):
    images, val = train_and_val(Images(data="generated:hazelnut/few/1"), "generated:hazelnut/val/2", 8)
    assert images.pixels.shape[1:] == (8, 8, 3) and val.classes == images.classes
    assert len(val.names) == 2 * len(images.names)
    named = train_and_val(Images(data="generated:hazelnut/few/1"), "", 8)[1]  # their own val split
    assert len(named.names) > len(images.names) and named.classes == images.classes
    assert train_and_val(Images(data="generated:hazelnut/few/1"), None, 8)[1] is None
    for name in ("crack", "good"):
        (tmp_path / name).mkdir()
        Image.new("RGB", (9, 8)).save(tmp_path / name / "a.png")
    images, val = train_and_val(Images(data=str(tmp_path)), "", 8)
    assert images.classes == ["crack", "good"] and val is None
    with pytest.raises(ValueError, match="held-out images must have the classes of .*; '.*' is in one only"):
        train_and_val(Images(data=str(tmp_path)), "generated:hazelnut/val/1", 8)

"""Aspect-ratio buckets: shapes of one area, every image in the nearest, and the table of what went where."""

import numpy as np
import pytest
from PIL import Image

from data.__main__ import main
from data.buckets import cut, describe_buckets, nearest, shapes, sorted_out
from data.transforms import Transform, adm_center_crop, centre_crop

ODD = [(100, 1000), (333, 500), (501, 500), (768, 431), (2000, 90)]  # five aspect ratios, (height, width)


@pytest.mark.parametrize(("side", "step"), [(1024, 64), (512, 64), (768, 64), (64, 8), (16, 8)])
def test_shapes_have_about_one_area_and_the_square_is_one(side, step):
    found = shapes(side, step)
    assert (side, side) in found and len(set(found)) == len(found)
    assert all(height % step == width % step == 0 for height, width in found)
    assert all(height * width <= side * side for height, width in found)
    assert {(width, height) for height, width in found} & set(found)
    assert {(832, 1216), (1216, 832), (896, 1152)} <= set(found) or side != 1024  # those that XL was trained with


def test_an_image_goes_to_the_nearest_ratio_and_none_is_left_out():
    choice = shapes(1024)
    assert nearest((1216, 832), choice) == (1216, 832) and nearest((500, 501), choice) == (1024, 1024)
    assert nearest((4000, 2000), choice) == nearest((400, 200), choice)
    sorted_images = sorted_out(ODD, choice)
    assert sorted(i for numbers in sorted_images.values() for i in numbers) == [0, 1, 2, 3, 4]
    assert sorted_images[(1024, 1024)] == [2] and len(sorted_images) == 5


def test_near_is_by_the_logarithm_so_that_width_and_height_count_alike():
    """1.45 lies nearer to 1 than to 2 by difference, and nearer to 2 by ratio, as 1 / 1.45 does to 1 / 2."""
    choice = [(64, 32), (64, 64), (32, 64)]
    assert nearest((100, 145), choice) == (32, 64) and nearest((145, 100), choice) == (64, 32)
    assert nearest((100, 140), choice) == nearest((140, 100), choice) == (64, 64)


@pytest.mark.parametrize("image", ODD)
def test_what_is_cut_off_is_what_the_transform_cuts_off(image):
    """Of a picture that counts its own pixels, by area."""
    shape = nearest(image, shapes(64, 8))
    height, width = image
    lit = np.zeros((*image, 3), np.uint8)
    lit[...] = 255
    out = Transform(shape)(lit)
    assert out.shape == (*shape, 3) and (out == 255).all()
    scale = max(shape[0] / height, shape[1] / width)
    kept = (shape[0] / scale) * (shape[1] / scale) / (height * width)
    assert cut(image, shape) == pytest.approx(1 - kept)
    top, left = Transform(shape).original(image)[2:]
    assert min(top, left) == 0 or abs(top - left) <= 1


def test_crops_and_adm_take_a_shape():
    image = np.arange(40 * 60 * 3, dtype=np.uint8).reshape(40, 60, 3)
    assert (centre_crop(image, (20, 30)) == image[10:30, 15:45]).all()
    assert adm_center_crop(image, (8, 16)).shape == (8, 16, 3)
    with pytest.raises(ValueError, match="a centre crop of 70x20 does not fit in an image of 60x40"):
        centre_crop(image, (20, 70))


def test_the_table_says_what_went_where(tmp_path, capsys):
    for i, (height, width) in enumerate(ODD):
        Image.new("RGB", (width, height), (40 * i, 90, 20)).save(tmp_path / f"{i}.png")
    assert main(["--inspect", str(tmp_path), "--template", "a photo", "--buckets", "512"]) == 0
    out = capsys.readouterr().out
    assert "5 images in 5 buckets, none left out" in out and describe_buckets(ODD, shapes(512)) in out
    assert (
        "bucket  images  cut off  at most  enlarged" in out and "    512x512       1     0.2%     0.2%         1" in out
    )
    with pytest.raises(SystemExit):
        main(["--inspect", str(tmp_path), "--buckets", "20"])

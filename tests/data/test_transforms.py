import numpy as np
import pytest
import torch

from data.transforms import (
    Transform,
    Variant,
    adm_center_crop,
    apply_variant,
    centre_crop,
    resize,
    resize_short,
    to_tensor,
    to_uint8,
    variants,
)

RNG = np.random.default_rng(0)
NOISE = RNG.integers(0, 256, (12, 16, 3), dtype=np.uint8)


def test_centre_crop_takes_the_middle_and_pads_nothing():
    assert (centre_crop(NOISE, 10) == NOISE[1:11, 3:13]).all()
    with pytest.raises(ValueError, match="centre crop of 13x13 does not fit in an image of 16x12"):
        centre_crop(NOISE, 13)


def test_resize_is_antialiased_and_keeps_the_aspect_ratio():
    assert resize(NOISE, 6).shape == (6, 6, 3) and resize(NOISE, (3, 4)).shape == (3, 4, 3)
    assert resize_short(NOISE, 6).shape == (6, 8, 3) and resize_short(NOISE.swapaxes(0, 1), 24).shape == (32, 24, 3)
    stripes = np.zeros((64, 64, 3), np.uint8)
    stripes[:, ::2] = 255  # without antialiasing, all 0 or all 255
    assert np.abs(resize(stripes, 16)[4:-4, 4:-4].astype(int) - 127).max() <= 2
    assert set(np.unique(resize(stripes[..., 0], 16, nearest=True))) <= {0, 255}


def test_adm_crop_halves_by_box_means_while_twice_the_size_remains():
    image = RNG.integers(0, 256, (16, 16, 3), dtype=np.uint8)
    expected = image.astype(int)
    for side in (8, 4):  # each pass, across then down, rounds a mean of two pixels
        expected = (expected.reshape(2 * side, side, 2, 3).sum(2) + 1) // 2
        expected = (expected.reshape(side, 2, side, 3).sum(1) + 1) // 2
    assert (adm_center_crop(image, 4) == expected).all()  # no bicubic step is left to do
    wide = RNG.integers(0, 256, (30, 41, 3), dtype=np.uint8)  # 30 < 2 * 16: bicubic only
    assert (adm_center_crop(wide, 16) == centre_crop(resize(wide, (16, 22)), 16)).all()
    assert adm_center_crop(wide, 40).shape == (40, 40, 3)  # smaller images are enlarged


@pytest.mark.parametrize("kind", ["resize", "adm"])
def test_transform_crops_first_and_returns_a_square(kind):
    image = np.zeros((40, 60, 3), np.uint8)
    image[12:28, 22:38] = 200  # the middle 16 x 16
    assert (Transform(size=8, crop=16, kind=kind)(image) == 200).all()
    assert Transform(size=8, kind=kind)(image).shape == (8, 8, 3)
    mask = np.where(image[..., 0] > 0, 7, 3).astype(np.uint8)
    assert set(np.unique(Transform(size=9, kind=kind).mask(mask))) == {3, 7}


def test_transform_refuses_what_it_does_not_know():
    with pytest.raises(ValueError, match="'resize' or 'adm'; found 'stretch'"):
        Transform(size=8, kind="stretch")
    with pytest.raises(ValueError, match="at least 1 pixel; found 0"):
        Transform(size=0)


def test_to_tensor_and_back():
    x = to_tensor(NOISE)
    assert x.shape == (3, 12, 16) and x.dtype == torch.float32 and x.min() >= -1 and x.max() <= 1
    assert to_tensor(np.uint8([[[0, 255, 51]]])).flatten().tolist() == pytest.approx([-1, 1, -0.6])
    assert (to_uint8(x) == NOISE).all() and to_tensor(NOISE[None]).shape == (1, 3, 12, 16)
    assert to_uint8(torch.tensor([[[-9.0]], [[9.0]], [[0.0]]])).tolist() == [[[0, 255, 128]]]
    for value in (float("nan"), float("inf")):
        with pytest.raises(ValueError, match="expected an image, found NaN or infinity in it"):
            to_uint8(torch.tensor([[[0.0]], [[value]], [[0.0]]]))
    with pytest.raises(ValueError, match="found float64"):
        to_tensor(NOISE / 255)


def test_variants_are_listed_once_each():
    assert variants() == [Variant()]
    assert variants("h") == [Variant(), Variant(hflip=True)]
    assert len(variants("hv", (45, 65, 120))) == 12 and len(variants("hv", (0, 45, 65, 120))) == 16
    assert len(variants("hv", (0, 90, 180, 270))) == 8  # the symmetries of the square, not 16
    assert variants("none", (0, 360)) == [Variant()]


@pytest.mark.parametrize("flips, rotations", [("v", (0,)), ("none", ()), ("none", (float("nan"),))])
def test_variants_refuse_unknown_choices(flips, rotations):
    with pytest.raises(ValueError, match="must be one"):
        variants(flips, rotations)


def test_equal_canonical_forms_are_equal_images():
    x = torch.randn(2, 3, 8, 8)
    for hflip in (False, True):
        for degrees in (0, 90, 30):
            a, b = Variant(hflip, True, degrees), Variant(not hflip, False, degrees + 180)
            assert a.canonical == b.canonical
            assert torch.allclose(apply_variant(x, a), apply_variant(x, b), atol=1e-4)


def test_flips_and_quarter_turns_move_pixels_exactly():
    x = to_tensor(NOISE)
    assert torch.equal(apply_variant(x, Variant()), x)
    assert torch.equal(apply_variant(x, Variant(hflip=True)), x.flip(-1))
    assert torch.equal(apply_variant(x, Variant(vflip=True)), x.flip(-2))
    assert torch.equal(apply_variant(x, Variant(degrees=90)), x.rot90(1, (1, 2)))  # (3, 16, 12): sides swap
    assert torch.equal(apply_variant(x, Variant(degrees=-90)), x.rot90(-1, (1, 2)))
    assert (apply_variant(NOISE, Variant(True, False, 90)) == np.rot90(NOISE[:, ::-1])).all()
    mask = NOISE[..., 0]
    assert (apply_variant(mask, Variant(degrees=180), nearest=True) == mask[::-1, ::-1]).all()


def test_other_angles_turn_counter_clockwise_about_the_centre():
    x = to_tensor(RNG.integers(0, 256, (9, 9, 3), dtype=np.uint8)).double()
    assert torch.allclose(apply_variant(x, Variant(degrees=90 - 1e-9)), x.rot90(1, (1, 2)), atol=1e-5)
    dot = torch.zeros(1, 21, 21)
    dot[0, 10, 14] = 1  # 4 to the right of the centre
    turned = apply_variant(dot, Variant(degrees=45))
    assert divmod(int(turned.argmax()), 21) == (7, 13)  # 4 / sqrt 2 = 2.8 right and up


@pytest.mark.parametrize("degrees", [45, 65, 120])
def test_corners_are_mirrored_content_and_never_black(degrees):
    image = np.full((32, 32, 3), 200, np.uint8)
    assert (apply_variant(image, Variant(degrees=degrees)) == 200).all()
    x = torch.rand(2, 1, 3, 16, 24) + 1
    turned = apply_variant(x, Variant(degrees=degrees))
    assert turned.shape == x.shape and turned.min() >= 1
    mask = np.where(NOISE[..., 0] > 100, 255, 3).astype(np.uint8)
    assert set(np.unique(apply_variant(mask, Variant(degrees=degrees), nearest=True))) == {3, 255}


def test_a_variant_leaves_its_input_alone():
    before, x = NOISE.copy(), to_tensor(NOISE)
    apply_variant(NOISE, Variant(True, True, 45))
    apply_variant(x, Variant(True, True, 45))
    assert (NOISE == before).all() and torch.equal(x, to_tensor(before))


def test_what_a_crop_to_a_square_leaves_outside():
    mask = np.zeros((8, 16), bool)
    mask[:, 3:7] = True  # the square is of columns 4 to 11
    assert Transform(4).lost(mask) == pytest.approx(0.25) and Transform(4, crop=2).lost(mask) == 1
    mask[:, :4] = False
    assert Transform(4).lost(mask) == 0

"""Generated photographs of logos: reproducible one by one, captions, masks that are the red box, words."""

import numpy as np
import pytest
import scipy

from data import load
from data.generated import logos, makers, photographs, words
from data.source import captions_of, generated_captions, held_out
from data.transforms import Transform


def test_an_image_depends_on_its_key_alone():
    key = ("logo_on_blue", "hat", "few", 3)
    first = logos.image(*key)
    logos.image("nothing_on_props", "perfume", "base", 0)
    assert all(np.array_equal(a, b) for a, b in zip(first, logos.image(*key)))
    for other in (
        ("logo_on_blue", "hat", "few", 4),
        ("logo_on_blue", "hat", "test", 3),
        ("logo_on_blue", "shorts", "few", 3),
        ("logo_on_black", "hat", "few", 3),
        ("fake_on_blue", "hat", "few", 3),
    ):
        assert not np.array_equal(first[0], logos.image(*other)[0])
    assert not np.array_equal(first[0], logos.image(*key, seed=1)[0])


def test_ids_are_frozen():
    """Positions in these tuples enter the random key: a change would change every image ever made."""
    grounds = ("black", "blue", "green", "white", "props")
    assert logos.PRODUCTS == tuple(f"{mark}_on_{ground}" for mark in ("nothing", "logo", "fake") for ground in grounds)
    assert logos.PRODUCT_STATES["fake_on_white"] == ("t-shirt", "sweater", "shorts", "hat")
    assert logos.PRODUCT_STATES["logo_on_props"] == ("billboard", "perfume")
    assert not set(logos.PRODUCTS) & set(photographs.PRODUCTS)


@pytest.mark.parametrize("product", logos.PRODUCTS)
def test_the_mask_is_the_red_box(product):
    """Pixels of the mask are red or ink, those outside are not red; without a logo there is neither mask nor red."""
    for state in logos.PRODUCT_STATES[product]:
        rgb, mask, _ = logos.image(product, state, "test", 0)
        red = (rgb[..., 0].astype(int) - rgb[..., 1:].max(-1)) > 60
        ink = rgb.max(-1) < 60
        assert set(np.unique(mask)) <= {0, 255} and mask.dtype == np.uint8
        if product.startswith("nothing"):
            assert not mask.any() and red.mean() < 0.01
        else:
            assert 0.12 < (mask > 0).mean() < 0.30
            assert (red | ink)[mask > 0].mean() > 0.85 and 0.4 < red[mask > 0].mean() < 0.9
            assert red[mask == 0].mean() < 0.06  # half a pixel of the box's edge


def test_shapes_types_and_captions():
    rgb, mask, caption = logos.image("logo_on_black", "sweater", "base", 0, size=48)
    assert rgb.shape == (48, 48, 3) and rgb.dtype == np.uint8 and mask.shape == (48, 48)
    assert caption == "a photo of a black sweater with a <logo> logo"
    assert logos.caption("nothing_on_green", "t-shirt") == "a photo of a green t-shirt"
    assert logos.caption("fake_on_white", "hat") == "a photo of a white hat with a logo"
    assert logos.caption("logo_on_props", "billboard") == "a photo of a billboard with a <logo> logo"


def test_what_there_is_not_is_refused():
    with pytest.raises(ValueError, match="logo_on_black has no 'perfume'; it has t-shirt, sweater, shorts, hat"):
        logos.image("logo_on_black", "perfume", "few", 0)


def test_a_colour_is_that_of_the_garment():
    """The pixels of the shirt beside the logo, in the mean of a few photographs."""
    below = {
        ground: np.mean(
            [logos.image(f"nothing_on_{ground}", "t-shirt", "test", i)[0][44:52, 24:40] for i in range(3)], (0, 1, 2)
        )
        for ground in logos.DYES
    }
    assert below["black"].max() < 60 and below["white"].min() > 120
    assert below["blue"].argmax() == 2 and below["green"].argmax() == 1


def test_a_fake_is_any_word_but_the_brands():
    rng = np.random.default_rng(0)
    words = {logos.misspelt(rng) for _ in range(3000)}
    assert len(words) == 255 and logos.WORD not in words and set("".join(words)) == set(logos.LETTERS)


def test_letters_are_the_strokes_they_look_like():
    """In a frame of its own the ink of each letter lies where its sign has it."""
    v, u = np.mgrid[-1:1:81j, -1:1:81j]
    for stroke, (a, b) in {
        "|": ((0, -0.25), (0, 0.25)),
        "-": ((-0.12, 0), (0.12, 0)),
        "/": ((-0.12, 0.25), (0.12, -0.25)),
        "\\": ((-0.12, -0.25), (0.12, 0.25)),
    }.items():
        distance = logos.letter(u, v, stroke)
        near = distance < 0.03
        line = np.array(b) - a
        off = np.abs((u - a[0]) * line[1] - (v - a[1]) * line[0]) / np.hypot(*line)
        assert near.any() and off[near].max() < 0.08


def test_load_gives_every_class_its_images():
    images = load("generated:logo_on_black+fake_on_props/few/2", Transform(32))
    assert images.pixels.shape == (12, 32, 32, 3) and images.masks.any((1, 2)).all()
    assert images.classes[3:] == ["logo_on_black/hat", "fake_on_props/billboard", "fake_on_props/perfume"]
    assert images.parents["logo_on_black/hat"] == "logo_on_black"
    one = logos.image("logo_on_black", "shorts", "few", 1, size=32)[0]
    assert np.array_equal(images.pixels[images.names.index("logo_on_black/shorts/few/1")], one)
    captions = [item.caption for item in generated_captions(images.names).items]
    assert captions[4] == "a photo of black shorts with a <logo> logo"
    assert sorted(captions) == sorted(captions_of("generated:logo_on_black+fake_on_props/few/2"))


def test_groups_name_all_grounds_of_a_mark():
    assert captions_of("generated:nothing/few/1")[-1] == "a photo of a perfume"
    assert len(captions_of("generated:logo/few/3")) == 54 and len(captions_of("generated:logo_on_black/few/12")) == 48
    assert held_out("generated:logo/few/3", "") == "generated:logo/val"
    assert set(makers.MAKERS) == set(photographs.PRODUCTS) | set(logos.PRODUCTS) | set(words.PRODUCTS)
    with pytest.raises(
        ValueError,
        match="no product 'logo_on_red'; there are hazelnut, .*misspelt_near_props and the groups "
        "base, world, all, nothing, logo, fake, hugo, misspelt, hugo_near, misspelt_near",
    ):
        captions_of("generated:logo_on_red/few")


def test_between_pixels_a_plane_is_bilinear_and_0_beyond():
    rng = np.random.default_rng(0)
    plane, places = rng.random((5, 7)), rng.uniform(-3, 9, (2, 400))
    expected = scipy.ndimage.map_coordinates(np.pad(plane, 9), places + 9, order=1)
    np.testing.assert_allclose(words.between(plane, *places), expected, atol=1e-12)

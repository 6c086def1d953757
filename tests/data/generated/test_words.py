"""Generated photographs of a word in real letters: reproducible one by one, masks, words, groups."""

import numpy as np
import pytest

from data.generated import logos, makers, words
from data.source import captions_of


def test_an_image_depends_on_its_key_alone():
    key = ("hugo_on_blue", "hat", "few", 3)
    first = words.image(*key)
    words.image("misspelt_on_props", "perfume", "base", 0)
    assert all(np.array_equal(a, b) for a, b in zip(first, words.image(*key)))
    for other in (("hugo_on_blue", "hat", "test", 3), ("misspelt_on_blue", "hat", "few", 3)):
        assert not np.array_equal(first[0], words.image(*other)[0])
    assert not np.array_equal(first[0], words.image(*key, seed=1)[0])


def test_ids_are_frozen():
    """Positions in these tuples enter the random key: a change would change every image ever made."""
    grounds = ("black", "blue", "green", "white", "props")
    marks = [(view, mark) for view in ("on", "near") for mark in ("hugo", "misspelt")]
    assert words.PRODUCTS == tuple(f"{mark}_{view}_{ground}" for view, mark in marks for ground in grounds)
    assert words.PRODUCT_STATES["hugo_on_props"] == logos.PRODUCT_STATES["logo_on_props"]
    assert words.GROUPS.keys() <= makers.GROUPS.keys() and not set(words.PRODUCTS) & set(logos.PRODUCTS)


def test_captions_are_those_of_the_logo_and_of_the_fake():
    assert words.caption("hugo_on_black", "sweater") == "a photo of a black sweater with a <logo> logo"
    assert words.image("misspelt_on_props", "perfume", "few", 0)[2] == "a photo of a perfume with a logo"
    assert words.caption("hugo_near_black", "shorts") == "a close-up of black shorts with a <logo> logo"
    assert captions_of("generated:hugo_on_black/few/12") == captions_of("generated:logo_on_black/few/12")
    with pytest.raises(ValueError, match="hugo_on_black has no 'perfume'; it has t-shirt, sweater, shorts, hat"):
        words.image("hugo_on_black", "perfume", "few", 0)


@pytest.mark.parametrize("product", words.PRODUCTS)
def test_the_mask_is_the_box_of_red_and_ink(product):
    rgb, mask, _ = words.image(product, words.PRODUCT_STATES[product][0], "test", 0)
    red = (rgb[..., 0].astype(int) - rgb[..., 1:].max(-1)) > 60
    least, most = (0.12, 0.30) if "_on_" in product else (0.26, 0.50)
    assert set(np.unique(mask)) == {0, 255} and least < (mask > 0).mean() < most
    assert 0.4 < red[mask > 0].mean() < 0.9 and red[mask == 0].mean() < 0.06


def test_a_wrong_word_has_one_to_four_other_letters():
    rng = np.random.default_rng(0)
    wrong = [sum(a != b for a, b in zip(words.misspelt(rng), words.WORD)) for _ in range(400)]
    assert set(wrong) == {1, 2, 3, 4}


def test_the_letters_lie_within_the_box():
    ink = words.letters("HUGO")
    assert ink.shape == (96, 200) and ink.max() > 0.9 and 0.1 < ink.mean() < 0.4
    assert not ink[:10].any() and not ink[-10:].any() and not ink[:, :10].any() and not ink[:, -10:].any()
    assert not np.array_equal(ink, words.letters("HUCO"))


def test_reader_reads_the_right_word_and_no_wrong_one():
    pytest.importorskip("rapidocr_onnxruntime")
    from metrics.objects.reader import load_reader, spelled

    read = load_reader()
    for mark, right in (("hugo_on", 1), ("misspelt_on", 0), ("hugo_near", 1), ("misspelt_near", 0)):
        pixels = [words.image(f"{mark}_{ground}", "hat", "test", 0)[0] for ground in ("black", "blue", "white")]
        assert spelled(read(np.stack(pixels)), words.WORD).mean() == right

"""The generated photographs: reproducible one by one, disjoint splits, visible defects, captions."""

import numpy as np
import pytest

from data import load
from data.generated import photographs
from data.source import held_out, parse
from data.transforms import Transform


def test_an_image_depends_on_its_key_alone():
    first = photographs.image("hazelnut", "crack", "few", 3)
    photographs.image("pill", "good", "base", 0)
    again = photographs.image("hazelnut", "crack", "few", 3)
    assert np.array_equal(first[0], again[0]) and np.array_equal(first[1], again[1])
    for other in (("hazelnut", "crack", "few", 4), ("hazelnut", "crack", "test", 3), ("hazelnut", "hole", "few", 3)):
        assert not np.array_equal(first[0], photographs.image(*other)[0])


def test_ids_are_frozen():
    """Positions in these tuples enter the random key: a change would change every image ever made."""
    assert photographs.PRODUCTS == ("hazelnut", "screw", "metal_nut", "pill", "zipper", "cable", "tile", "bottle")
    assert photographs.STATES == ("good", "crack", "hole", "cut", "scratch", "print", "contamination", "bent")
    assert tuple(photographs.SPLITS) == ("base", "few", "val", "test", "oracle")
    assert not set(photographs.TARGETS) & set(photographs.BASE)


@pytest.mark.parametrize("product", photographs.PRODUCTS)
def test_every_defect_can_be_seen(product):
    """Inside the mask the picture differs from the same photograph without the defect; `good` has no mask."""
    for state in photographs.PRODUCT_STATES[product]:
        masks = [photographs.image(product, state, "few", i, size=32)[1] for i in range(4)]
        areas = [(mask > 0).mean() for mask in masks]
        if state == "good":
            assert max(areas) == 0
        else:
            assert min(areas) > 0.004, f"{product}/{state}: the mask covers {min(areas):.2%}"


def test_shapes_types_and_captions():
    rgb, mask, caption = photographs.image("metal_nut", "contamination", "base", 0, size=48)
    assert rgb.shape == (48, 48, 3) and rgb.dtype == np.uint8
    assert mask.shape == (48, 48) and set(np.unique(mask)) <= {0, 255}
    assert caption == "a photo of a metal nut with contamination"
    assert photographs.caption("hazelnut", "good") == "a photo of a flawless hazelnut"
    assert photographs.caption("screw", "bent") == "a photo of a bent screw"
    assert photographs.caption("pill", "crack") == "a photo of a pill with a crack"


def test_a_state_that_a_product_cannot_have_is_refused():
    with pytest.raises(ValueError, match="hazelnut has no state 'bent'"):
        photographs.image("hazelnut", "bent", "few", 0)


def test_load_gives_every_class_its_images():
    images = load("generated:hazelnut/few/2", Transform(16))
    assert images.pixels.shape == (10, 16, 16, 3)
    assert images.classes == [f"hazelnut/{state}" for state in ("good", "crack", "hole", "cut", "print")]
    assert images.labels.tolist() == [0, 0, 1, 1, 2, 2, 3, 3, 4, 4]
    assert images.names[3] == "hazelnut/crack/few/1"


def test_sources_name_groups_and_counts():
    assert parse("generated:base/base") == (list(photographs.BASE), "base", 500)
    assert parse("generated:pill+tile/val/3") == (["pill", "tile"], "val", 3)
    assert held_out("generated:pill/few/3", "") == "generated:pill/val"
    assert held_out("folder", "") == "" and held_out("folder", "other") == "other"


@pytest.mark.parametrize(
    "source, words",
    [
        ("generated:hazelnut", "PRODUCTS/SPLIT"),
        ("generated:hazelnut/train", "split of base, few"),
        ("generated:walnut/few", "no product 'walnut'"),
        ("generated:hazelnut/few/0", "above 0"),
    ],
)
def test_a_wrong_source_says_what_there_is(source, words):
    with pytest.raises(ValueError, match=words):
        parse(source)

"""The generated photographs: reproducible one by one, disjoint splits, visible defects, captions."""

import hashlib

import numpy as np
import pytest

from data import load
from data.generated import kinds, photographs
from data.source import held_out, parse
from data.transforms import Transform

# SHA-256 of three photographs of each state, see below.
PIXELS = {
    "hazelnut": "8adf81bb1b26f79f018b213c07cfbb4e8dda2dc9e8cdaaab1a7d53548f7fae8f",
    "screw": "09673bcd7d7f2c73a3d12ab7774fefb95f763cf6b52e15288bfcfa4a858be62f",
    "metal_nut": "c8b19fc50bddd4686d6740449b53ebb46c232869497a692832ca768e1f96000b",
    "pill": "927aaaad3b64df78a1104147b71d6228897ad6bff789f57764d5a5f06cf6fa6f",
    "zipper": "ffd6aecaa6816b1056c9b5b2396ddd23493a597fbaabecf3cb6dea57f836a32f",
    "cable": "61898e3ee718ccf56d3ebcb32dd5fafa1c76655b3f169b3929ef124465670716",
    "tile": "8810cda35c65c3c623269d72950f04ddf926a6376d622cb34e083c7f371b87e1",
    "bottle": "111fc3c53d6890cb3d89f8f726f98892f1f64312e40aa018ee2ba47280718326",
}


def test_an_image_depends_on_its_key_alone():
    first = photographs.image("hazelnut", "crack", "few", 3)
    photographs.image("pill", "good", "base", 0)
    again = photographs.image("hazelnut", "crack", "few", 3)
    assert np.array_equal(first[0], again[0]) and np.array_equal(first[1], again[1])
    for other in (("hazelnut", "crack", "few", 4), ("hazelnut", "crack", "test", 3), ("hazelnut", "hole", "few", 3)):
        assert not np.array_equal(first[0], photographs.image(*other)[0])


def test_ids_are_frozen():
    """Positions in these tuples enter the random key: a change would change every image ever made."""
    assert photographs.PRODUCTS == (
        *PIXELS,
        "gear",
        "spring",
        "coin",
        "button",
        "capsule",
        "bearing",
        "key",
        "leaf",
        "almond",
        "egg",
        "bottle_cap",
        "chip",
        "connector",
        "toothbrush",
        "cookie",
        "shell",
        "wood",
        "leather",
        "carpet",
        "fabric",
        "brushed_metal",
        "concrete",
        "paper",
        "plastic",
        "mesh",
        "marble",
    )
    assert photographs.STATES == ("good", "crack", "hole", "cut", "scratch", "print", "contamination", "bent")
    assert tuple(photographs.SPLITS) == ("base", "few", "val", "test", "oracle")
    assert photographs.BASE == ("metal_nut", "pill", "zipper", "cable", "tile", "bottle")
    assert not set(photographs.TARGETS) & set(photographs.WORLD)
    assert photographs.WORLD[:6] == photographs.BASE  # classes of the base keep their numbers in the wider world
    assert len(photographs.WORLD) == len(set(photographs.WORLD)) == len(photographs.PRODUCTS) - 2


@pytest.mark.parametrize("product", PIXELS)
def test_the_first_products_keep_their_pixels(product):
    """Bytes of images, masks and captions as they were before there were other kinds."""
    digest = hashlib.sha256()
    for state in photographs.PRODUCT_STATES[product]:
        for split, index in (("base", 0), ("few", 3), ("oracle", 41)):
            rgb, mask, caption = photographs.image(product, state, split, index)
            for part in (rgb.tobytes(), mask.tobytes(), caption.encode()):
                digest.update(part)
    assert digest.hexdigest() == PIXELS[product]


def test_the_world_has_twenty_kinds_of_object_and_ten_of_surface():
    surfaces = [name for name in photographs.WORLD if name in kinds.SURFACES or name == "tile"]
    assert len(surfaces) >= 10 and len(photographs.WORLD) - len(surfaces) >= 20
    assert all(len(photographs.PRODUCT_STATES[name]) >= 4 for name in photographs.WORLD)


@pytest.mark.parametrize("product", kinds.KINDS)
def test_a_kind_varies_and_stays_in_its_picture(product):
    """No two good photographs are nearly alike; objects leave some ground at the border, surfaces none."""
    images = np.stack([photographs.image(product, "good", "few", i, size=32)[0] for i in range(4)]).astype(float)
    away = [np.abs(a - b).mean() for i, a in enumerate(images) for b in images[:i]]
    assert min(away) > 3, away
    distance = photographs.surface(product, "good", 64, np.random.default_rng(0))[0].distance
    assert (distance.max() < 0) == (product in kinds.SURFACES)
    assert product in kinds.SURFACES or (distance < 0).mean() > 0.12


def test_colours_and_palettes_belong_together():
    """Every palette names colours that there are, and no colour is without a use."""
    named = set(
        " ".join(
            f"{part.material.colours} {part.material.second}"
            for kind in kinds.KINDS.values()
            for part in kind.parts
            if part.material
        ).split()
    )
    assert named == set(kinds.materials.COLOURS)


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
    assert photographs.caption("egg", "crack") == "a photo of an egg with a crack"
    assert photographs.caption("brushed_metal", "scratch") == "a photo of brushed metal with a scratch"
    assert photographs.caption("wood", "good") == "a photo of flawless wood"


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
    assert parse("generated:world/val") == (list(photographs.WORLD), "val", 20)
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

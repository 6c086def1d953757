"""Superclasses are data: of folders, of generated products, and of files."""

import json
from collections import Counter

import pytest
import torch
from PIL import Image

from data import ImageSet, load
from data.folders.hierarchy import with_parents
from data.transforms import Transform


def images(classes, parents=None):
    pixels = torch.zeros(len(classes), 1, 1, 3, dtype=torch.uint8).numpy()
    return ImageSet(pixels, torch.arange(len(classes)), classes, classes, None, parents or {})


def test_folders_and_generated_products_tell_their_superclasses(tmp_path):
    for folder in ("leek/chive", "leek/onion", "melon/gac"):
        (tmp_path / folder).mkdir(parents=True)
        Image.new("RGB", (8, 8)).save(tmp_path / folder / "0.png")
    parents = {"leek/chive": "leek", "leek/onion": "leek", "melon/gac": "melon"}
    assert load(str(tmp_path), Transform(8)).parents == parents
    assert with_parents(load(str(tmp_path), Transform(8))).parents == parents
    assert load(str(tmp_path / "leek"), Transform(8)).parents == {}
    assert set(load("generated:hazelnut+pill/few/1", Transform(16)).parents.items()) >= {
        ("hazelnut/crack", "hazelnut"),
        ("pill/good", "pill"),
    }


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("h.toml", '"crack" = "damaged"\n"good" = "sound"\n"mould" = "damaged"\n'),
        ("h.json", '{"crack": "damaged", "good": "sound", "mould": "damaged"}'),
    ],
)
def test_a_file_comes_before_the_folders(tmp_path, name, text):
    (tmp_path / name).write_text(text)
    given = images(["crack", "good"], {"crack": "nut", "good": "nut"})
    assert with_parents(given, str(tmp_path / name)).parents == {"crack": "damaged", "good": "sound"}
    assert given.parents == {"crack": "nut", "good": "nut"} and with_parents(given).parents == given.parents


def test_the_superclasses_of_inaturalist(tmp_path):
    """Its 10,000 classes as their paper groups them, by ranges of ids; all others are Animalia."""
    ranges = {
        "Plants": (5729, 9999),
        "Insects": (175, 2700),
        "Birds": (3111, 4596),
        "Fungi": (5388, 5728),
        "Reptiles": (4859, 5171),
        "Mammals": (4613, 4858),
        "Ray-finned fishes": (2756, 2938),
        "Amphibians": (2939, 3108),
        "Mollusks": (5219, 5387),
        "Arachnids": (4, 156),
    }
    table = {f"{i:05d}": "Animalia" for i in range(10_000)}
    table |= {f"{i:05d}": name for name, (low, high) in ranges.items() for i in range(low, high + 1)}
    (tmp_path / "inat.json").write_text(json.dumps(table))
    sizes = Counter(with_parents(images(sorted(table)), str(tmp_path / "inat.json")).parents.values())
    assert sizes == {
        "Plants": 4271,
        "Insects": 2526,
        "Birds": 1486,
        "Fungi": 341,
        "Reptiles": 313,
        "Mammals": 246,
        "Ray-finned fishes": 183,
        "Amphibians": 170,
        "Mollusks": 169,
        "Arachnids": 153,
        "Animalia": 142,
    }
    assert sizes.total() == 10_000


@pytest.mark.parametrize(
    ("name", "text", "words"),
    [
        ("h.toml", '"crack" = "damaged"', r"h.toml: no superclass of 1 of 2 classes \(good\)"),
        ("h.toml", '"crack" = "good"\n"good" = "sound"', "'good' is the name of a class and of a superclass"),
        ("h.toml", "crack = 3\ngood = 3", "expected one superclass name for each class name"),
        ("h.json", '["crack", "good"]', "expected one superclass name for each class name"),
        ("h.json", "{", "hierarchy .*h.json: "),
        ("h.toml", "crack = ", "hierarchy .*h.toml: "),
        ("h.txt", "crack damaged", "a .toml or .json file"),
        ("h.toml", None, "hierarchy .*h.toml: .*No such file"),
    ],
)
def test_a_file_that_does_not_tell_is_one_sentence(tmp_path, name, text, words):
    if text is not None:
        (tmp_path / name).write_text(text)
    with pytest.raises(ValueError, match=words):
        with_parents(images(["crack", "good"]), str(tmp_path / name))


def test_folders_that_do_not_tell_either():
    with pytest.raises(
        ValueError,
        match=r"the images' folders: no superclass of 2 of 2 classes \(crack, good\); it "
        r"takes superclass/class folders or --hierarchy FILE",
    ):
        with_parents(images(["crack", "good"]))

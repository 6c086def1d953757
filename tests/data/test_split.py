"""A share of a source that is held out: by the files, whole objects, the same however the folder is written."""

import shutil

import pytest
from PIL import Image

from data import load
from data.source import classes_of, load_captioned
from data.split import parse, parts
from data.transforms import Transform
from recipes.settings import configure


@pytest.fixture
def photos(tmp_path):
    """Ten photographs of five objects in each of two classes, every one of another grey."""
    for c, name in enumerate(("crack", "hole")):
        (tmp_path / "photos" / name).mkdir(parents=True)
        for i in range(10):
            Image.new("RGB", (8, 8), (20 * i, 50 * c, 0)).save(tmp_path / "photos" / name / f"tile{i // 2}_{i}.png")
    return tmp_path / "photos"


def names(source):
    return {name.rpartition("photos/")[2] for name in load(source, Transform(8)).names}


@pytest.mark.parametrize("val, held", [("0.2", 4), ("4", 8), ("0.2:tile\\d", 4), ("3:(tile\\d)", 8), (".05", 2)])
def test_the_parts_are_all_images_and_each_class_has_its_share(photos, val, held):
    train, test = (names(source) for source in parts(str(photos), val))
    assert len(test) == held and not train & test and train | test == names(str(photos))
    assert sum(name.startswith("crack") for name in test) == held // 2
    if "tile" in val:
        assert all(name[:-6] not in {other[:-6] for other in train} for name in test)


def test_other_names_and_more_images_change_little_and_copies_stay_together(photos):
    _, test = parts(str(photos), "0.2")
    before = {path for path in names(test)}
    shutil.copy(photos / next(iter(before)), photos / next(iter(before)).replace("tile", "copy"))
    copied = names(test)
    assert {name for name in copied if "copy" in name} and len(copied & before) >= 3
    for path in photos.glob("*/tile*.png"):
        path.rename(path.with_name(f"z{path.name}"))
    assert {name.replace("ztile", "tile") for name in names(test)} == copied


def test_captioned_images_are_parted_with_their_captions(photos):
    train, test = (load_captioned(source, Transform(8), "a {class}") for source in parts(str(photos), "0.2"))
    assert len(train[0].names) == len(train[1].items) == 16 and len(test[1].items) == 4
    assert [str(item.path) for item in test[1].items] == test[0].names
    assert classes_of(f"{photos}#val:0.2") == ["crack", "hole"]


def test_what_cannot_be_parted_is_refused(photos, tmp_path):
    (tmp_path / "one" / "crack").mkdir(parents=True)
    Image.new("RGB", (8, 8)).save(tmp_path / "one" / "crack" / "0.png")
    for source, words in (
        (f"{tmp_path / 'one'}#val:0.2", "nothing can be held out of a class of one image or object"),
        (f"{photos}#val:0.2:part", "the pattern 'part' of --val matches nothing in it"),
        (f"{photos}#val:1.5", "a share is 0.2, 4 or 0.2:PATTERN, found '1.5'"),
        (f"{photos}#val:0.2:(", "is no pattern"),
    ):
        with pytest.raises(ValueError, match=words.replace("(", r"\(")):
            load(source, Transform(8))


def test_a_command_with_a_share_names_both_parts_and_a_folder_stays_one():
    values = configure(["--data", "photos", "--val", "0.2"], "").values
    assert (values["data"], values["val"]) == ("photos#train:0.2", "photos#val:0.2")
    assert configure(["--data", "photos", "--val", "held/"], "").values["val"] == "held/"
    assert parse("photos#val:4")[1].amount == 4 and parse("C#/photos") == ("C#/photos", None)

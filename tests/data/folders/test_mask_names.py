"""Masks by every published way to name them: paired with their image, and never taken for a photograph."""

import numpy as np
import pytest
from PIL import Image

from data import load
from data.folders.captions import read_captions
from data.folders.layouts import recognise
from data.source import load_captioned
from data.transforms import Transform

RNG = np.random.default_rng(0)


def photograph(path, size=(32, 32)):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(RNG.integers(0, 255, (*size, 3), dtype=np.uint8)).save(path)


def mask(path, size=(32, 32), value=255):
    path.parent.mkdir(parents=True, exist_ok=True)
    pixels = np.zeros(size, np.uint8)
    pixels[8:16, 8:16] = value
    Image.fromarray(pixels).save(path)


@pytest.mark.parametrize(
    ("image", "its"),
    [
        ("kos01/Part0.jpg", "kos01/Part0_label.bmp"),  # KolektorSDD
        ("test/10000.png", "test/10000_GT.png"),  # KolektorSDD2
        ("MT_Blowhole/exp1.jpg", "MT_Blowhole/exp1.png"),  # magnetic tiles, Crack500
        ("c/ISIC_0000000.jpg", "c/ISIC_0000000_segmentation.png"),
        ("c/100034_sat.jpg", "c/100034_mask.png"),  # DeepGlobe
        ("c/1.png", "c/gt_1.png"),
        ("c/1.png", "c/1-seg.png"),
        ("c/1.png", "c/1_ground_truth.png"),
        ("c/0576.png", "c/Label/0576_label.png"),  # DAGM
        ("JPEGImages/1.jpg", "SegmentationClass/1.png"),  # VOC
        ("train_img/1.jpg", "train_lab/1.png"),  # DeepCrack
        ("c/1.tif", "c/1_annotation.tif"),
        ("photos/1.jpg", "trimaps/1.png"),
    ],
)
@pytest.mark.parametrize("value", [1, 255])
def test_a_mask_by_its_name_is_paired_and_no_image(tmp_path, image, its, value):
    photograph(tmp_path / image)
    mask(tmp_path / its, value=value)
    (item,) = recognise(tmp_path).items
    assert (item.path, item.mask) == (tmp_path.resolve() / image, tmp_path.resolve() / its)
    images = load(str(tmp_path), Transform(32))
    assert len(images.pixels) == 1 and images.masks.mean() == 1 / 16
    (item,) = read_captions(tmp_path, "a photo").items
    assert item.mask == tmp_path.resolve() / its


@pytest.mark.parametrize(
    ("image", "its"),
    [
        ("images/001.gull/1.jpg", "segmentations/001.gull/1.png"),  # CUB
        ("Images/Anomaly/1.jpg", "Masks/Anomaly/1.png"),  # VisA
        ("images/crack/1.jpg", "ground_truth/crack/1_gt.png"),
        ("test/ko/1.png", "ground_truth/ko/1.png"),  # BTAD
    ],
)
def test_a_tree_of_masks_beside_one_of_images_is_no_superclass(tmp_path, image, its):
    photograph(tmp_path / "set" / image)
    mask(tmp_path / "set" / its)
    for root in (tmp_path / "set", tmp_path):
        (item,) = recognise(root).items
        assert item.mask == (tmp_path / "set" / its).resolve() and item.parent == "set"


def test_a_class_that_is_called_like_a_mask_stays_a_class(tmp_path):
    for name in ("label/1.png", "label/2.png", "with_mask/1.png", "crack/1.png", "crack/1_label.png"):
        photograph(tmp_path / name)
    layout = recognise(tmp_path)
    assert layout.classes == ["crack", "label", "with_mask"] and len(layout.items) == 5
    assert "named like masks, but not like one by their content, 1: 1_label.png" in layout.notes[0]


def test_of_two_folders_of_masks_the_first_is_read_and_the_second_is_noted(tmp_path):
    photograph(tmp_path / "JPEGImages" / "1.jpg")
    mask(tmp_path / "SegmentationClass" / "1.png")
    mask(tmp_path / "SegmentationObject" / "1.png")
    layout = recognise(tmp_path)
    assert layout.classes == ["JPEGImages"] and layout.items[0].mask.parent.name == "SegmentationClass"
    assert layout.notes[0] == "second masks of images that have one are not read, 1: 1.png"


def test_what_looks_like_a_mask_and_is_trained_on_is_said(tmp_path, capsys):
    for i in range(3):
        photograph(tmp_path / "a" / f"{i}.png")
        mask(tmp_path / "b" / f"{i}.png")
        mask(tmp_path / "b" / f"jpeg{i}.jpg")
    load(str(tmp_path), Transform(32))
    said = capsys.readouterr().err
    assert "of 9 images these look like masks" in said and "are used as photographs, 6: b/0.png" in said
    load_captioned(str(tmp_path), Transform(32), "a {class}")
    assert "of 9 images these look like masks" in capsys.readouterr().err
    for i in range(2):
        photograph(tmp_path / "only" / "a" / f"{i}.png")
    capsys.readouterr()
    load(str(tmp_path / "only"), Transform(32))
    assert capsys.readouterr().err == ""


def test_all_pairs_of_one_name_are_told_at_once(tmp_path):
    for i in range(5):
        photograph(tmp_path / "a" / f"{i}.png")
        photograph(tmp_path / "a" / f"{i}.jpg")
    with pytest.raises(ValueError, match=r"5: 0.png and 0.jpg, 1.png and 1.jpg, .* have the same name"):
        recognise(tmp_path)


def test_metadata_that_names_both_files_of_one_stem_goes_by_their_whole_names(tmp_path):
    photograph(tmp_path / "a.jpg")
    photograph(tmp_path / "a.png")
    rows = '{"file_name": "a.jpg", "text": "one"}\n{"file_name": "a.png", "text": "two"}\n'
    (tmp_path / "metadata.jsonl").write_text(rows)
    assert [item.caption for item in read_captions(tmp_path).items] == ["one", "two"]
    (tmp_path / "metadata.jsonl").unlink()
    with pytest.raises(ValueError, match="1: a.png and a.jpg have the same name"):
        read_captions(tmp_path, "a photo")


def test_what_the_crop_cuts_away_of_masks_is_said(tmp_path, capsys):
    for i, column in enumerate((0, 0, 14, 24, 40)):  # of a mask 8 wide in an image of 96 x 32: 32..64 is kept
        photograph(tmp_path / "hole" / f"{i}.png", (32, 96))
        pixels = np.zeros((32, 96), np.uint8)
        pixels[8:16, column : column + 24] = 1
        Image.fromarray(pixels).save(tmp_path / "hole" / f"{i}_mask.png")
    load(str(tmp_path), Transform(32))
    said = capsys.readouterr().err
    assert (
        "of 5 masks these are cut away" in said
        and "2 wholly, 1 by over half, 1 in part (4: 0.png, 1.png, 2.png, ...)" in said
    )
    load(str(tmp_path), Transform(32, crop=16))
    assert "of 5 masks these are cut away" in capsys.readouterr().err


def test_a_mask_too_small_for_the_side_is_said(tmp_path, capsys):
    photograph(tmp_path / "dot" / "1.png", (64, 64))
    pixels = np.zeros((64, 64), np.uint8)
    pixels[0, 0] = 255
    Image.fromarray(pixels).save(tmp_path / "dot" / "1_mask.png")
    load(str(tmp_path), Transform(8))
    assert "1 wholly" in capsys.readouterr().err


def test_images_of_kinds_that_are_not_read_are_said_in_training(tmp_path, capsys):
    photograph(tmp_path / "a" / "1.png")
    for name in ("2.heic", "3.HEIC", "4.gif", "notes.md"):
        (tmp_path / "a" / name).write_bytes(b"\0\0\0\x18ftypheic")
    load(str(tmp_path), Transform(32))
    assert "3 images of kinds that are not read: 1 .gif, 2 .heic" in capsys.readouterr().err
    load_captioned(str(tmp_path), Transform(32), "a photo")
    assert "3 images of kinds that are not read: 1 .gif, 2 .heic" in capsys.readouterr().out

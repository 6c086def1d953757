import os
from pathlib import Path

import pytest
from PIL import Image

from data.folders.layouts import Item, describe_layout, recognise


def picture(path, colour=(10, 20, 30), size=(4, 4)):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", size, colour).save(path, "JPEG" if path.suffix.lower() in (".jpg", ".jpeg") else "PNG")
    return path


def mvtec_product(folder):
    for name in ("train/good/000", "train/good/001", "test/good/000", "test/crack/000", "test/crack/001"):
        picture(folder / f"{name}.png")
    for name in ("000", "001"):
        picture(folder / "ground_truth" / "crack" / f"{name}_mask.png")


def spectrum_product(folder):
    picture(folder / "image" / "crack" / "000.png")
    picture(folder / "image" / "good" / "000.png")
    picture(folder / "mask" / "crack" / "000_mask.png")
    picture(folder / "rgb_mask" / "crack" / "000_rgb_mask.png")


def test_class_folders_are_sorted_by_name_and_suffix_case_does_not_matter(tmp_path):
    for name in ("hole/b.png", "crack/2.JPG", "crack/10.jpeg", "hole/a.PNG"):
        picture(tmp_path / name)
    layout = recognise(tmp_path)
    assert layout.kind == "classes" and layout.classes == ["crack", "hole"] and layout.parents == {}
    names = [item.path.relative_to(layout.root).as_posix() for item in layout.items]
    assert names == ["crack/10.jpeg", "crack/2.JPG", "hole/a.PNG", "hole/b.png"]
    assert layout.items[0] == Item(layout.root / "crack" / "10.jpeg", "crack", None, None)


def test_what_is_skipped_is_counted_and_an_odd_suffix_is_decided_by_content(tmp_path):
    picture(tmp_path / "crack" / "a.png")
    picture(tmp_path / "crack" / "b.tmp").rename(tmp_path / "crack" / "b")  # a PNG without a suffix
    for name in (
        "crack/Thumbs.db",
        "crack/.a.png.swp",
        "crack/note.txt",
        "crack/README",
        ".git/x.png",
        "__MACOSX/a.png",
    ):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text("not an image")
    os.mkfifo(tmp_path / "crack" / "pipe.png")  # opening it would wait for ever
    layout = recognise(tmp_path)
    assert [item.path.name for item in layout.items] == ["a.png", "b"]
    assert layout.skipped == {"hidden": 2, "Thumbs.db": 1, "__MACOSX": 1, ".txt": 1, "no suffix": 1, ".png": 1}
    assert "skipped: " in describe_layout(layout) and "2 hidden" in describe_layout(layout)


def test_two_levels_give_superclasses(tmp_path):
    for name in ("leek/chive/1.png", "leek/onion/1.png", "melon/gac/1.png"):
        picture(tmp_path / name)
    layout = recognise(tmp_path)
    assert layout.kind == "two-level" and layout.notes == ()
    assert layout.parents == {"leek/chive": "leek", "leek/onion": "leek", "melon/gac": "melon"}


def test_one_superclass_may_be_a_mere_wrapper(tmp_path):
    picture(tmp_path / "images" / "crack" / "1.png")
    layout = recognise(tmp_path)
    assert layout.kind == "two-level" and "mere wrapper" in layout.notes[0]


def test_mvtec_with_masks_for_one_product_and_for_several(tmp_path):
    mvtec_product(tmp_path / "hazelnut")
    mvtec_product(tmp_path / "screw")
    (tmp_path / "license.txt").write_text("licence")
    one, both = recognise(tmp_path / "hazelnut"), recognise(tmp_path)
    assert one.kind == both.kind == "mvtec"
    assert one.classes == ["hazelnut/crack", "hazelnut/good"] and one.parents["hazelnut/good"] == "hazelnut"
    assert both.classes == [*one.classes, "screw/crack", "screw/good"] and len(both.items) == 2 * len(one.items) == 10
    masks = {item.path.relative_to(one.root).as_posix(): item.mask for item in one.items if item.mask}
    assert sorted(masks) == ["test/crack/000.png", "test/crack/001.png"]
    assert masks["test/crack/001.png"].name == "001_mask.png" and both.skipped == {".txt": 1}


def test_mvtec_of_normal_images_only_and_a_mask_without_image(tmp_path):
    picture(tmp_path / "tile" / "train" / "good" / "000.png")
    assert recognise(tmp_path).classes == ["tile/good"]
    picture(tmp_path / "tile" / "ground_truth" / "crack" / "007_mask.png")
    picture(tmp_path / "tile" / "extra" / "x.png")
    assert recognise(tmp_path).notes == (
        "extra/ of 1 product(s) is not read",
        "1 masks belong to no image",
        "one image in total",
    )


@pytest.mark.parametrize("inside", ["", "DS-MVTec", "DefectSpectrum/DS-MVTec"])
def test_defect_spectrum_with_and_without_its_parent(tmp_path, inside):
    for product in ("hazelnut", "screw"):
        spectrum_product(tmp_path / inside / product)
    layout = recognise(tmp_path / Path(inside).parent if inside else tmp_path)
    assert layout.kind == "defect-spectrum" and len(layout.items) == 4
    assert [item.mask is None for item in layout.items] == [False, True] * 2
    assert layout.items[0].label == "hazelnut/crack" and layout.notes == ("rgb_mask/ of 2 product(s) is not read",)
    assert recognise(tmp_path / inside / "screw").classes == ["screw/crack", "screw/good"]


def test_defect_spectrum_names_the_parts_that_it_does_not_read(tmp_path):
    spectrum_product(tmp_path / "DS-MVTec" / "hazelnut")
    picture(tmp_path / "DS-DAGM" / "image" / "1.png")
    assert "only DS-MVTec is read, not DS-DAGM" in recognise(tmp_path).notes


def test_inaturalist_names_carry_the_ranks(tmp_path):
    bird = "03111_Animalia_Chordata_Aves_Accipitriformes_Accipitridae_Aquila_chrysaetos"
    fish = "02912_Animalia_Chordata_Actinopterygii_Perciformes_Gobiidae_Sagamia_geneionema_x"
    for name in (bird, fish):
        picture(tmp_path / name / "uuid.jpg")
    layout = recognise(tmp_path)
    assert layout.kind == "inaturalist" and layout.classes == [fish, bird]
    assert layout.parents == {bird: "Aves", fish: "Actinopterygii"}
    assert recognise(tmp_path, rank="genus").parents == {bird: "Aquila", fish: "Sagamia"}
    assert set(recognise(tmp_path, rank="kingdom").parents.values()) == {"Animalia"}
    with pytest.raises(ValueError, match="rank must be one of kingdom"):
        recognise(tmp_path, rank="supercategory")


def test_images_directly_in_the_root_are_an_error_that_lists_the_layouts(tmp_path):
    picture(tmp_path / "a.png")
    with pytest.raises(ValueError, match="1 images lie directly in the folder") as error:
        recognise(tmp_path)
    assert "<class>/a.png" in str(error.value) and "ground_truth/<defect>" in str(error.value)


def test_splits_are_not_classes_and_the_nearest_valid_folder_is_named(tmp_path):
    picture(tmp_path / "train" / "crack" / "1.png")
    picture(tmp_path / "test" / "crack" / "1.png")
    with pytest.raises(ValueError, match="test/ is the name of a split") as error:
        recognise(tmp_path)
    assert f"nearest: {tmp_path / 'test'} is a valid classes layout with 1 images" in str(error.value)
    assert "    crack/  1 images" in str(error.value)


@pytest.mark.parametrize(
    "files, reason",
    [
        (["a/1.png", "b/c/1.png"], "a/ holds images itself and b/ holds folders"),
        (["a/1.png", "a/c/1.png"], "a/ holds both images and folders"),
        (["a/b/c/1.png"], "a/b/ is a third level of folders"),
        ([], "no class folder"),
    ],
)
def test_mixed_deep_and_empty_trees_are_refused(tmp_path, files, reason):
    for name in files:
        picture(tmp_path / name)
    with pytest.raises(ValueError, match=reason):
        recognise(tmp_path)


def test_a_folder_beside_products_and_a_folder_in_a_class_are_refused(tmp_path):
    mvtec_product(tmp_path / "hazelnut")
    picture(tmp_path / "zoo" / "1.png")
    with pytest.raises(ValueError, match="hazelnut/ is a product of the mvtec layout, but zoo/ is not"):
        recognise(tmp_path)
    picture(tmp_path / "hazelnut" / "test" / "crack" / "more" / "1.png")
    with pytest.raises(ValueError, match="holds folders, more/ for one"):
        recognise(tmp_path / "hazelnut")


def test_a_class_with_no_image_is_named_with_what_it_holds(tmp_path):
    picture(tmp_path / "crack" / "1.png")
    (tmp_path / "hole").mkdir()
    with pytest.raises(ValueError, match=r"class folder \S*hole holds no image\n"):
        recognise(tmp_path)
    (tmp_path / "hole" / "1.heic").write_bytes(b"\0\0\0\x18ftypheic")
    with pytest.raises(ValueError, match=r"hole holds no image \(skipped: 1 .heic\)"):
        recognise(tmp_path)


def test_a_long_tree_is_shortened_in_the_error(tmp_path):
    for i in range(6):
        picture(tmp_path / "a" / "b" / f"class{i}" / "1.png")
    for i in range(5):
        picture(tmp_path / f"{i}.png")
    with pytest.raises(ValueError) as error:
        recognise(tmp_path)
    assert "and 2 more folders" in str(error.value) and "5 images: 0.png, 1.png, 2.png, ..." in str(error.value)


def test_one_image_in_total_is_allowed(tmp_path):
    picture(tmp_path / "logo" / "1.png")
    layout = recognise(tmp_path)
    assert layout.notes == ("one image in total",) and "note: one image in total" in describe_layout(layout)


def test_same_stem_twice_is_an_error(tmp_path):
    picture(tmp_path / "crack" / "a.png")
    picture(tmp_path / "crack" / "a.jpg")
    with pytest.raises(ValueError, match=r"a.png and a.jpg have the same name"):
        recognise(tmp_path)


def test_links_that_leave_the_root_or_lead_nowhere_are_refused(tmp_path):
    inside = picture(tmp_path / "set" / "crack" / "a.png")
    outside = picture(tmp_path / "elsewhere" / "b.png")
    link = tmp_path / "set" / "crack" / "b.png"
    link.symlink_to(inside)
    assert len(recognise(tmp_path / "set").items) == 2  # within the root: allowed
    (tmp_path / "alias").symlink_to(tmp_path / "set")
    assert len(recognise(tmp_path / "alias").items) == 2  # the root itself may be a link
    link.unlink()
    link.symlink_to(outside)
    with pytest.raises(ValueError, match="symbolic link that leaves"):
        recognise(tmp_path / "set")
    link.unlink()
    (tmp_path / "set" / "hole").symlink_to(tmp_path / "elsewhere", target_is_directory=True)
    with pytest.raises(ValueError, match="symbolic link that leaves"):
        recognise(tmp_path / "set")
    (tmp_path / "set" / "hole").unlink()
    link.symlink_to(tmp_path / "set" / "gone.png")
    with pytest.raises(ValueError, match="leads nowhere"):
        recognise(tmp_path / "set")


def test_a_link_to_its_own_parent_ends_in_an_error(tmp_path):
    picture(tmp_path / "crack" / "a.png")
    (tmp_path / "loop").symlink_to(tmp_path, target_is_directory=True)
    with pytest.raises(ValueError, match="loop"):
        recognise(tmp_path)


def test_a_root_that_is_missing_or_a_file(tmp_path):
    with pytest.raises(ValueError, match="no such folder"):
        recognise(tmp_path / "nothing")
    with pytest.raises(ValueError, match="not a folder"):
        recognise(picture(tmp_path / "a.png"))


def test_describe_prints_superclasses_masks_and_shortens_a_long_list(tmp_path):
    mvtec_product(tmp_path / "hazelnut")
    text = describe_layout(recognise(tmp_path))
    assert text.startswith("mvtec: 2 classes, 5 images, 2 masks in ")
    assert "1 superclasses: hazelnut" in text and "hazelnut/crack     2 images     2 masks" in text
    assert "... and 1 more classes" in describe_layout(recognise(tmp_path), limit=1)


@pytest.mark.parametrize("masks", ["crack/1_mask", "crack/masks/1", "masks/1"])
def test_masks_of_class_folders_are_masks_and_no_images(tmp_path, masks):
    for name in ("crack/1", "crack/2", "hole/3", masks):
        picture(tmp_path / f"{name}.png")
    layout = recognise(tmp_path)
    assert layout.kind == "classes" and layout.classes == ["crack", "hole"]
    assert [item.mask and item.mask.relative_to(tmp_path).as_posix() for item in layout.items] == [
        f"{masks}.png",
        None,
        None,
    ]


def test_masks_of_two_levels(tmp_path):
    for name in ("pill/crack/1", "pill/crack/1_mask", "tile/good/1"):
        picture(tmp_path / f"{name}.png")
    assert [(item.label, item.mask is not None) for item in recognise(tmp_path).items] == [
        ("pill/crack", True),
        ("tile/good", False),
    ]


def test_images_and_masks_in_folders_of_their_own_are_a_product(tmp_path):
    for name in ("images/crack/1.jpg", "images/free/2.jpg", "masks/crack/1.png"):
        picture(tmp_path / "tile" / name)
    layout = recognise(tmp_path / "tile")
    assert layout.kind == "defect-spectrum" and layout.parents == {"tile/crack": "tile", "tile/free": "tile"}
    assert [item.mask and item.mask.name for item in layout.items] == ["1.png", None]

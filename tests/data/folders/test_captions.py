import json
import os

import pytest
from PIL import Image

from data.folders.captions import describe_captions, read_captions
from data.folders.tree import read_tree
from data.source import generated_captions, load_generated, load_items
from data.transforms import Transform


def picture(path, size=(4, 4)):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", size).save(path, "PNG")
    return path


def pictures(root, *names):
    for name in names:
        picture(root / name)


def jsonl(root, *rows):
    (root / "metadata.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))


def found(captions, root):
    """{name: (caption, repeats, origin)}"""
    return {item.path.relative_to(root.resolve()).as_posix(): item[1:4] for item in captions.items}


def test_metadata_jsonl_names_files_in_subfolders_in_any_order(tmp_path):
    pictures(tmp_path, "b.png", "dogs/old/a.png")
    jsonl(
        tmp_path,
        {"file_name": "dogs/old/a.png", "text": " a dög \n on a lawn "},
        {"file_name": "b.png", "text": "a cat"},
    )
    captions = read_captions(tmp_path)
    assert found(captions, tmp_path) == {
        "b.png": ("a cat", 1, "metadata.jsonl"),
        "dogs/old/a.png": ("a dög \n on a lawn", 1, "metadata.jsonl"),
    }
    assert (
        describe_captions(captions, 1) == f"2 images: 2 captions from metadata.jsonl\n  {tmp_path.name}/b.png: 'a cat'"
    )


def test_metadata_csv_with_quotes_bom_and_windows_line_ends(tmp_path):
    pictures(tmp_path, "a.png", "b.png")
    (tmp_path / "metadata.csv").write_bytes(
        b'\xef\xbb\xbffile_name,text\r\na.png,"a cat, in ""two""\r\nlines"\r\n\r\nb.png,a dog\r\n'
    )
    assert [item.caption for item in read_captions(tmp_path).items] == ['a cat, in "two"\r\nlines', "a dog"]


@pytest.mark.parametrize("head", ["file_name,caption,score", "file_name,prompt,title", "file_name,words,score"])
def test_the_caption_column_is_text_caption_or_prompt_else_the_one_of_strings(tmp_path, head):
    pictures(tmp_path, "a.png", "b.png")
    (tmp_path / "metadata.csv").write_text(f"{head}\na.png,a cat,1\nb.png,a dog,2.5e-1\n")
    assert [item.caption for item in read_captions(tmp_path).items] == ["a cat", "a dog"]


@pytest.mark.parametrize(
    "row, reason",
    [
        ({"text": "x", "caption": "y"}, "several columns could be the caption: text, caption"),
        ({"title": "x", "author": "y", "score": 1}, "several columns could be the caption: title, author"),
        ({"score": 1, "mask_file_name": "m.png"}, "no column of captions .of file_name, score, mask_file_name."),
        ({"text": ["x", "y"]}, "line 1, text: a caption is text, found list"),
        ({"text": None}, "line 1, text: a caption is text, found nothing"),
        ({"text": " \n"}, "line 1, text: the caption is empty"),
        ({"text": "x" * 10_001}, "line 1, text: 10001 characters; a caption has at most 10000"),
        ({"text": "a\0b"}, "line 1, text: character 1 is"),
        ({"text": "half of \ud83d"}, "line 1, text: character 8 is"),
    ],
)
def test_a_column_or_a_text_that_is_no_caption_is_refused(tmp_path, row, reason):
    pictures(tmp_path, "a.png")
    jsonl(tmp_path, {"file_name": "a.png", **row})
    with pytest.raises(ValueError, match=rf"metadata\.jsonl.* {reason}"):
        read_captions(tmp_path)


@pytest.mark.parametrize(
    "names, reason",
    [
        (["a.png", "b.png", "c.png"], r"names that are no image in its folder, 1: 'c.png' \(line 3\)"),
        (
            ["a.png", "b.png", "../b.png", "/etc/b.png"],
            r"in its folder, 2: '../b.png' \(line 3\), '/etc/b.png' \(line 4\)",
        ),
        (["a.png", "b.png", "./a.png"], r"images named twice, 1: ./a.png \(lines 1 and 3\)"),
        (["a.png"], "images that no row names, 1: b.png"),
    ],
)
def test_rows_and_images_match_one_to_one(tmp_path, names, reason):
    pictures(tmp_path, "a.png", "b.png")
    jsonl(tmp_path, *({"file_name": name, "text": "x"} for name in names))
    with pytest.raises(ValueError, match=rf"metadata\.jsonl: .*{reason}"):
        read_captions(tmp_path)


@pytest.mark.parametrize(
    "name, text, reason",
    [
        ("metadata.jsonl", '{"file_name": "a.png", "text": "x"}\n\n{"file_name": ', "line 3: not JSON"),
        ("metadata.jsonl", "[" * 100_000, "line 1: not JSON"),
        ("metadata.jsonl", '["a.png", "x"]', "line 1: not an object such as"),
        ("metadata.jsonl", "", "no column file_name; found no row"),
        ("metadata.jsonl", '{"image": "a.png", "text": "x"}', "no column file_name; found image, text"),
        ("metadata.csv", "file_name;text\na.png;x\n", "no column file_name; found file_name;text"),
        ("metadata.csv", "file_name,text\na.png,a dog, asleep\n", "line 2: 3 fields, but the head has 2"),
        ("metadata.csv", 'file_name,text\na.png,"never closed\n', "line 2: unexpected end of data"),
        ("metadata.csv", "file_name,text,text\na.png,x,y\n", "two columns have one name in file_name, text, text"),
    ],
)
def test_metadata_that_cannot_be_read_is_named_with_its_line(tmp_path, name, text, reason):
    pictures(tmp_path, "a.png")
    (tmp_path / name).write_text(text)
    with pytest.raises(ValueError, match=rf"{name}.*{reason}"):
        read_captions(tmp_path)


def test_one_metadata_file_in_the_folder_itself(tmp_path):
    pictures(tmp_path, "train/a.png", "test/b/c.png")
    for folder in ("train", "test"):
        (tmp_path / folder / "metadata.csv").write_text("file_name,text\na.png,x\n")
    with pytest.raises(ValueError, match="found 2: test/metadata.csv, train/metadata.csv"):
        read_captions(tmp_path)
    assert len(read_captions(tmp_path / "train").items) == 1


def test_sidecars_beside_metadata_and_an_unused_template_are_noted(tmp_path):
    pictures(tmp_path, "a.png")
    jsonl(tmp_path, {"file_name": "a.png", "text": "a cat"})
    (tmp_path / "a.txt").write_text("another cat")
    captions = read_captions(tmp_path, "a photo")
    assert captions.notes == ("1 sidecar files are not read: metadata.jsonl wins", "the template is used for no image")


def test_sidecars_win_over_the_template_and_the_sentence_counts_both(tmp_path):
    pictures(tmp_path, *(f"{i:02}.png" for i in range(20)))
    for i in range(18):
        (tmp_path / f"{i:02}.{'TXT' if i == 3 else 'txt'}").write_text(f"hat {i}\n")
    captions = read_captions(tmp_path, "a photo of a hat")
    assert describe_captions(captions, 0) == "20 images: 18 captions from sidecar .txt, 2 from the template"
    assert captions.items[3].caption == "hat 3" and captions.items[19].caption == "a photo of a hat"


def test_the_first_line_is_the_caption_and_further_lines_are_noted(tmp_path):
    pictures(tmp_path, "a.png", "b.png")
    (tmp_path / "a.txt").write_bytes(b"\xef\xbb\xbfa hat \r\n\r\nby hand\r\n")
    (tmp_path / "b.caption").write_bytes(b"a cap\r\n")
    (tmp_path / "readme.txt").write_text("two hats")
    captions = read_captions(tmp_path)
    assert found(captions, tmp_path) == {
        "a.png": ("a hat", 1, "sidecar .txt"),
        "b.png": ("a cap", 1, "sidecar .caption"),
    }
    assert captions.notes == (
        "caption files of no image, 1: readme.txt",
        "only the first line is the caption in 1: a.txt",
    )
    assert "note: caption files of no image" in describe_captions(captions)


@pytest.mark.parametrize(
    "content, reason",
    [
        (b"", "a.txt, first line: the caption is empty"),
        (b"  \nsecond", "a.txt, first line: the caption is empty"),
        (b"caf\xe9", "a.txt: byte 3 is 0xe9, which is not UTF-8"),
        (b"\xef\xbb\xbfcaf\xe9", "a.txt: byte 6 is 0xe9, which is not UTF-8"),
        ("a hat".encode("utf-16"), "a.txt: byte 0 is 0xff, which is not UTF-8"),
        (b"PK\x03\x04\x00", "a.txt, first line: character 2 is"),
        (b"x" * 10_001, "a.txt, first line: 10001 characters; a caption has at most 10000"),
        (b"\0" * 1_000_000, "a.txt: 1000000 bytes; a caption has at most 10000 characters"),
    ],
)
def test_a_sidecar_that_holds_no_caption_is_refused(tmp_path, content, reason):
    pictures(tmp_path, "a.png")
    (tmp_path / "a.txt").write_bytes(content)
    with pytest.raises(ValueError, match=reason):
        read_captions(tmp_path, "a template does not repair it")


def test_images_without_a_caption_are_counted_and_the_first_named(tmp_path):
    pictures(tmp_path, *(f"{i}.png" for i in range(6)))
    (tmp_path / "0.txt").write_text("a hat")
    os.mkfifo(tmp_path / "1.txt")  # opening it would wait for ever
    with pytest.raises(ValueError, match=r"of 6 images these have no caption, 5: 1.png, 2.png, 3.png, \.\.\.; give"):
        read_captions(tmp_path)


def test_two_sidecars_of_one_image_and_a_folder_without_images_are_refused(tmp_path):
    with pytest.raises(ValueError, match="there is no image in it"):
        read_captions(tmp_path)
    pictures(tmp_path, "a.png")
    (tmp_path / "a.txt").write_text("a hat")
    (tmp_path / "a.caption").write_text("a cap")
    with pytest.raises(ValueError, match="a.png has two captions, a.caption and a.txt"):
        read_captions(tmp_path)


def test_kohya_folders_give_repeats_and_words_and_sidecars_win(tmp_path):
    pictures(tmp_path, "10_sks dog/a.png", "10_sks dog/b.png", "1_black_dog/c.png")
    (tmp_path / "10_sks dog" / "b.txt").write_text("sks dog asleep")
    captions = read_captions(tmp_path)
    assert found(captions, tmp_path) == {
        "1_black_dog/c.png": ("black_dog", 1, "folder name"),
        "10_sks dog/a.png": ("sks dog", 10, "folder name"),
        "10_sks dog/b.png": ("sks dog asleep", 10, "sidecar .txt"),
    }
    assert describe_captions(captions, 0) == (
        "3 images: 2 captions from the folder name, 1 from sidecar .txt; 21 with their repeats"
    )
    assert read_captions(tmp_path, "a dog").notes == ("the template is used for no image",)


@pytest.mark.parametrize(
    "names, template, reason",
    [
        (["10_sks dog", "dog"], "", "10_sks dog/ is named <repeats>_<caption> and dog/ is not"),
        (["0_good", "1_crack"], "", r"repeats are 1..9999, found 0"),
        (["20240131_dog"], "", r"repeats are 1..9999, found 20240131"),
        (["1_ "], "", "folder 1_ /: the caption is empty"),
        (["1_good"], "a {class} nut", "1_good/ is named <repeats>_<caption>, so it is no class"),
        (["img/10_sks dog", "reg/1_dog"], "", "lie in img/ and reg/: point at one of them"),
        (["img/10_sks dog"], "", "lie in img/: point at it"),
    ],
)
def test_folder_names_that_are_half_kohyas_are_refused(tmp_path, names, template, reason):
    pictures(tmp_path, *(f"{name}/a.png" for name in names))
    with pytest.raises(ValueError, match=reason):
        read_captions(tmp_path, template)


def test_dreambooth_instance_and_class_folder_have_one_prompt_each(tmp_path):
    pictures(tmp_path, "instance/a.png", "instance/b.jpg", "class/0.png")
    instance, others = (
        read_captions(tmp_path / name, f"a photo of {words}")
        for name, words in (("instance", "sks dog"), ("class", "a dog"))
    )
    assert [item[1:] for item in instance.items] == [("a photo of sks dog", 1, "template", None)] * 2
    assert [item.caption for item in others.items] == ["a photo of a dog"]


def test_class_and_superclass_are_the_folders_names(tmp_path):
    pictures(tmp_path, "metal_nut/bent_rim/1.png", "pill/crack/1.png")
    captions = read_captions(tmp_path, "a photo of a {superclass} with a {class}")
    assert [item.caption for item in captions.items] == [
        "a photo of a metal nut with a bent rim",
        "a photo of a pill with a crack",
    ]
    assert read_captions(tmp_path / "pill", "a {class}").items[0].caption == "a crack"


def test_a_species_is_called_by_genus_and_epithet(tmp_path):
    pictures(tmp_path, "03111_Animalia_Chordata_Aves_Accipitriformes_Accipitridae_Aquila_chrysaetos/1.png")
    (item,) = read_captions(tmp_path, "{class}, one of {superclass}").items
    assert item.caption == "Aquila chrysaetos, one of Aves"


@pytest.mark.parametrize(
    "names, template, reason",
    [
        (["a.png"], "a {class}", "asks for a class, but .*a.png has none"),
        (["crack/a.png"], "a {superclass}", "asks for a superclass, but .*a.png has none"),
        (["crack/a.png"], "a {label}", "may hold {class} and {superclass}, and no other braces"),
        (["crack/a.png"], "a {class", "no other braces"),
        (["crack/a.png"], "a {class.__init__}", "no other braces"),
        (["crack/a.png"], " ", "template: the caption is empty"),
        (["a.png", "crack/b.png"], "a dog", "1 images lie directly in it and 1 in its folders"),
        (["a/b/c/1.png"], "a dog", "a/b/ is a third level of folders"),
    ],
)
def test_a_template_that_does_not_fit_the_folder_is_refused(tmp_path, names, template, reason):
    pictures(tmp_path, *names)
    with pytest.raises(ValueError, match=reason):
        read_captions(tmp_path, template)


def test_generated_photographs_have_the_captions_of_their_grammar():
    images = load_generated("generated:metal_nut+pill/few/1", 8)
    captions = generated_captions(images.names)
    assert [item.path.as_posix() for item in captions.items] == images.names
    assert captions.items[0].caption == "a photo of a flawless metal nut"
    assert describe_captions(captions, 0) == "15 images: 15 captions from the generator"


@pytest.mark.parametrize(
    "image, mask",
    [
        ("a.png", "a_mask.png"),
        ("a.png", "masks/a.png"),
        ("a.png", "mask/a_mask.png"),
        ("photos/a.png", "masks/a.png"),
        ("10_sks dog/a.png", "10_sks dog/Masks/a.png"),
        ("test/crack/a.png", "ground_truth/crack/a_mask.png"),
        ("image/crack/a.png", "mask/crack/a_mask.png"),
    ],
)
def test_each_layout_of_masks_is_found_and_no_mask_is_an_image(tmp_path, image, mask):
    pictures(tmp_path, image, mask)
    (item,) = read_captions(tmp_path, "a photo").items
    assert item.path == tmp_path.resolve() / image and item.mask == tmp_path.resolve() / mask
    assert describe_captions(read_captions(tmp_path, "a photo"), 0).split("; ")[1] == "1 masks"


def test_iron_mask_alone_is_an_image_and_images_may_lack_a_mask(tmp_path):
    pictures(tmp_path, "iron_mask.png", "hat.png", "masks/hat.png")
    items = read_captions(tmp_path, "a photo").items
    assert [(item.path.name, item.mask is not None) for item in items] == [("hat.png", True), ("iron_mask.png", False)]


@pytest.mark.parametrize(
    "names, reason",
    [
        (["a.png", "masks/a.png", "masks/b.png"], "masks is a folder of masks, but to no image belong 1: b.png"),
        (["a.png", "masks/a.png", "masks/old/a.png"], "is a folder of masks, yet it holds folders, old/ for one"),
        (["a.png", "masks/a.png", "a_mask.png"], "a.png has two masks: .*a_mask.png and .*masks/a.png"),
        (["a.png", "masks/a.png", "masks/a_mask.png"], "a.png has two masks"),
        (["x/a.png", "y/a.png", "masks/a.png"], "masks/a.png could be the mask of .*x/a.png and of .*y/a.png"),
        (["hat/a.png", "mask/b.png"], "mask is a folder of masks, but to no image belong 1: b.png"),
    ],
)
def test_masks_that_fit_no_image_or_several_are_refused(tmp_path, names, reason):
    pictures(tmp_path, *names)
    with pytest.raises(ValueError, match=reason):
        read_captions(tmp_path, "a photo")


def test_a_mask_of_another_size_than_its_image_is_refused_when_decoded(tmp_path):
    picture(tmp_path / "a.png", (6, 4))
    picture(tmp_path / "masks" / "a.png", (4, 6))
    items = read_captions(tmp_path, "a photo").items
    with pytest.raises(ValueError, match=r"masks/a.png: .*a.png is 6x4, the mask 4x6"):
        load_items(items, ["a photo"], Transform(4))


def test_a_metadata_file_does_not_name_the_masks(tmp_path):
    pictures(tmp_path, "a.png", "a_mask.png")
    jsonl(tmp_path, {"file_name": "a.png", "text": "a cat"})
    assert read_captions(tmp_path).items[0].mask.name == "a_mask.png"
    assert len(read_tree(tmp_path).images) == 2

"""Measuring folders: which classes they share, what is refused, and known answers for known folders."""
import json

import numpy as np
import pytest

import evaluate
from data.generated import image
from data.grid import save_image

STATES = ("good", "crack")


def write(folder, split, count, flat=False, states=STATES):
    for state in states:
        for i in range(count):
            name = f"hazelnut_{state}_{i:03d}" if flat else f"hazelnut/{state}/{i:03d}"
            save_image(folder / f"{name}.png", image("hazelnut", state, split, i)[0])
    return str(folder)


def run(tmp_path, *flags):
    evaluate.main([*flags, "--out", str(tmp_path / "numbers.json")])
    return json.loads((tmp_path / "numbers.json").read_text())


def test_real_images_as_samples_are_right_near_and_no_copies_and_copies_are(tmp_path):
    real, few = write(tmp_path / "real", "test", 8), write(tmp_path / "few", "few", 8)
    good = write(tmp_path / "fake", "oracle", 8, flat=True)
    save_image(tmp_path / "fake" / "grid.png", np.zeros((200, 300, 3), np.uint8))   # as sample.py leaves one
    (numbers,) = run(tmp_path, "--real", real, "--fake", good, "--train", few)
    assert numbers["samples"] == numbers["real"] == numbers["train"] == 16
    assert numbers["asked_state"] > 0.7 and set(numbers["by_class"]) == {"hazelnut/good", "hazelnut/crack"}
    assert numbers["copies_pixels"] < 0.3 and numbers["coverage"] > 0.5
    (copied,) = run(tmp_path, "--real", real, "--fake", few, "--train", few)
    assert copied["copies"] == copied["copies_pixels"] == 1 and copied["authentic"] == 0


def test_several_networks_have_a_table_each(tmp_path):
    numbers = run(tmp_path, "--real", "generated:hazelnut/test/4", "--fake", "generated:hazelnut/val/4",
                  "--features", "tiny-features", "--features", "pixels")
    assert [table["network"] for table in numbers] == ["tiny-features", "pixels, pooled"]
    assert numbers[0]["kid_x1000"] != numbers[1]["kid_x1000"]
    assert numbers[0]["asked_state"] == numbers[1]["asked_state"]   # the judge is the same


def test_folders_without_common_classes_are_compared_as_a_whole(tmp_path, capsys):
    real = write(tmp_path / "real", "test", 4)
    fake = write(tmp_path / "fake", "oracle", 4, flat=True, states=("hole",))
    (numbers,) = run(tmp_path, "--real", real, "--fake", fake)
    assert "they differ, so that nothing is told by class" in capsys.readouterr().out
    assert not {"by_class", "asked_state"} & numbers.keys() and numbers["samples"] == 4


def test_images_are_brought_to_the_side_of_the_smallest_sample_or_to_size(tmp_path):
    real = write(tmp_path / "real", "test", 2)
    write(tmp_path / "fake", "val", 2)
    save_image(tmp_path / "fake" / "hazelnut" / "good" / "small.png", np.zeros((40, 50, 3), np.uint8))
    sets = evaluate.images_of(evaluate.Config(real=real, fake=str(tmp_path / "fake")))
    assert [None if images is None else images.pixels.shape[1:3] for images in sets] == [(40, 40), (40, 40), None]
    assert evaluate.images_of(evaluate.Config(real=real, fake=real, size=16))[0].pixels.shape[1] == 16


@pytest.mark.parametrize("flags, said", [
    (["--fake", "x"], "--real must name a folder of images, found none"),
    (["--real", "generated:hazelnut/test/2"], "--fake must name a folder of images, found none"),
    (["--real", "generated:hazelnut/test/2", "--fake", "nowhere"], "nowhere: no such folder"),
    (["--real", "generated:hazelnut/test/2", "--fake", "generated:hazelnut/val/2", "--features", "nothing"], "nothing"),
])
def test_what_is_refused(flags, said):
    with pytest.raises(ValueError, match=said):
        evaluate.main(flags)

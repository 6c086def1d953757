"""Measuring folders: which classes they share, what is refused, and known answers for known folders."""

import json
from typing import NamedTuple

import numpy as np
import pytest
import torch

import evaluate
from data import load
from data.generated.photographs import image
from data.output.grid import save_image
from data.transforms import Transform
from metrics.networks.lpips import LPIPS

STATES = ("good", "crack")
KNOWN = ("--features", "tiny-features")  # for images in folders it must be asked for


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
    save_image(tmp_path / "fake" / "grid.png", np.zeros((200, 300, 3), np.uint8))  # as sample.py leaves one
    (numbers,) = run(tmp_path, "--real", real, "--fake", good, "--train", few, *KNOWN)
    assert numbers["samples"] == numbers["real"] == numbers["train"] == 16
    assert numbers["class_accuracy"] > 0.7 and set(numbers["by_class"]) == {"hazelnut/good", "hazelnut/crack"}
    assert numbers["copies_pixels"] < 0.3 and numbers["coverage"] > 0.5
    (copied,) = run(tmp_path, "--real", real, "--fake", few, "--train", few, *KNOWN)
    assert copied["copies"] == copied["copies_pixels"] == 1 and copied["authentic"] == 0


def test_several_networks_have_a_table_each(tmp_path):
    numbers = run(
        tmp_path,
        "--real",
        "generated:hazelnut/test/4",
        "--fake",
        "generated:hazelnut/val/4",
        "--features",
        "tiny-features",
        "--features",
        "pixels",
    )
    assert [table["network"] for table in numbers] == ["tiny-features", "pixels, pooled"]
    assert numbers[0]["kid_x1000"] != numbers[1]["kid_x1000"]
    assert numbers[0]["class_accuracy"] == numbers[1]["class_accuracy"]  # the judge is the same


def test_folders_without_common_classes_are_compared_as_a_whole(tmp_path, capsys):
    real = write(tmp_path / "real", "test", 4)
    fake = write(tmp_path / "fake", "oracle", 4, flat=True, states=("hole",))
    (numbers,) = run(tmp_path, "--real", real, "--fake", fake)
    assert "they differ, so that no number is by class" in capsys.readouterr().out
    assert not {"by_class", "class_accuracy"} & numbers.keys() and numbers["samples"] == 4


def test_images_are_brought_to_the_side_of_the_smallest_sample_or_to_size(tmp_path):
    real = write(tmp_path / "real", "test", 2)
    write(tmp_path / "fake", "val", 2)
    save_image(tmp_path / "fake" / "hazelnut" / "good" / "small.png", np.zeros((40, 50, 3), np.uint8))
    sets = evaluate.images_of(evaluate.Images(real=real, fake=str(tmp_path / "fake")), [])
    assert [None if images is None else images.pixels.shape[1:3] for images in sets] == [(40, 40), (40, 40), None]
    assert evaluate.images_of(evaluate.Images(real=real, fake=real, size=16), [])[0].pixels.shape[1] == 16


def test_a_scorer_is_any_function_of_the_samples(tmp_path):
    (tmp_path / "mine.py").write_text("""
def bright(images):
    return images.mean((1, 2, 3)) / 255

def logo(images):
    return {"detector": [0.9] * 2 + [0.6] * (len(images) - 2), "text": [1] + [0] * (len(images) - 1)}
""")
    numbers = run(
        tmp_path,
        "--real",
        "generated:hazelnut/test/2",
        "--fake",
        "generated:hazelnut/val/2",
        "--scorer",
        f"{tmp_path}/mine.py:bright",
        "--scorer",
        f"{tmp_path}/mine.py:logo",
    )
    assert 0 < numbers[1]["bright"] < 1 and numbers[1]["samples"] == 10
    assert numbers[2]["detector"] == pytest.approx(0.18) and numbers[2]["text"] == 0.1
    assert numbers[2]["combined"] == pytest.approx(0.14)


class Reader(NamedTuple):
    """Images and texts as directions: red or blue."""

    scale: float = 10.0

    def embed(self, x):
        return x.mean((2, 3))[:, [0, 2]] + 1

    def texts(self, words):
        return torch.tensor([[1.0, 0.0] if "red" in word or "Good" in word else [0.0, 1.0] for word in words])


def test_prompts_are_compared_with_what_was_drawn_and_with_their_alternatives(tmp_path):
    for name, channel in (("a_red_box_000", 0), ("a_red_box_001", 2), ("a_blue_box_000", 2)):
        pixels = np.zeros((8, 8, 3), np.uint8)
        pixels[..., channel] = 255
        save_image(tmp_path / "fake" / f"{name}.png", pixels)
    asked = [["a red box", "a blue box"], ["a blue box"]]
    images = evaluate.Images(real="generated:hazelnut/test/2", fake=str(tmp_path / "fake"))
    drawn = evaluate.images_of(images, [choices[0] for choices in asked])[0]
    numbers = evaluate.measure_prompts(Reader(), drawn, asked)
    assert numbers["clip_t"] == pytest.approx(2 / 3) and numbers["clip_iqa"] == pytest.approx(1 / 3, abs=1e-3)
    assert numbers["prompt_images"] == 2 and numbers["prompt_accuracy"] == 0.5 and numbers["prompt_chance"] == 0.5
    assert evaluate.measure_prompts(Reader(), drawn, []).keys() == {"clip_iqa"}


def test_lpips_tells_samples_that_vary_from_copies():
    torch.manual_seed(0)
    network = LPIPS("alex").eval()
    fake, train = (load(f"generated:hazelnut/{split}/1", Transform(64)) for split in ("val", "few"))
    numbers = evaluate.lpips_distances(network, fake, train)
    assert numbers["samples"] == numbers["train"] == 5 and numbers["pairwise_lpips"] > 0
    assert numbers["clusters"] + numbers["single"] + numbers["empty"] == 5
    pixels, masks = train.pixels.repeat(2, 0), train.masks.repeat(2, 0)
    twice = train._replace(pixels=pixels, labels=train.labels.repeat_interleave(2), masks=masks)
    assert (
        numbers["masked_clusters"] + numbers["masked_single"] + numbers["masked_empty"] == 4
    )  # a good one has no mask
    assert evaluate.lpips_distances(network, twice, train)["masked_intra_cluster"] < 1e-9
    assert (
        evaluate.lpips_distances(network, twice, train)["intra_cluster"]
        < 1e-9
        < evaluate.lpips_distances(network, twice, None)["pairwise_lpips"]
    )


@pytest.mark.parametrize(
    "flags, said",
    [
        (["--fake", "x"], "--real must name a folder of images, found none"),
        (["--real", "generated:hazelnut/test/2"], "--fake must name a folder of images, found none"),
        (["--real", "generated:hazelnut/test/2", "--fake", "nowhere"], "nowhere: no such folder"),
        (
            ["--real", "generated:hazelnut/test/2", "--fake", "generated:hazelnut/val/2", "--features", "nothing"],
            "nothing",
        ),
    ],
)
def test_what_is_refused(flags, said):
    with pytest.raises(ValueError, match=said):
        evaluate.main(flags)


def test_what_is_no_number_is_left_out_with_its_reason(tmp_path):
    """Two samples, each nearest to a training image of its own: no distance within a cluster."""
    folder = write(tmp_path / "real", "test", 4, states=("crack",))
    for i in range(2):
        save_image(tmp_path / "fake" / "hazelnut" / "crack" / f"{i}.png", image("hazelnut", "crack", "test", i)[0])
    fake = str(tmp_path / "fake")
    evaluate.main(["--real", folder, "--fake", fake, "--train", folder, *KNOWN, "--out", str(tmp_path / "n")])
    (numbers,) = json.loads((tmp_path / "n").read_text(), parse_constant=pytest.fail)
    assert "diversity" not in numbers and numbers["clusters"] == 0
    assert numbers["left_out"]["diversity"] == "no training image is the nearest to two samples"


def test_folders_are_measured_without_a_network_and_the_table_ends_in_four_sentences(tmp_path, capsys):
    real, few = write(tmp_path / "real", "test", 6), write(tmp_path / "few", "few", 6)
    good = write(tmp_path / "fake", "oracle", 6, flat=True)
    (numbers,) = run(tmp_path, "--real", real, "--fake", good, "--train", few)
    said = capsys.readouterr().out
    assert numbers["network"] == "patches, no network" and numbers["patch_distance"] < 1.3
    assert numbers["copies_patches"] <= 0.3 and 0.7 < numbers["varied"] < 1.3 and "nearest_class_real" in numbers
    words = [line.strip().split(":")[0] for line in said.split("verdict:")[1].strip().splitlines()]
    assert words == ["asked for", "like the real ones", "varied", "copied"]
    assert "like the real ones: yes" in said and "a share of 12 images is known to +-0.29" in said
    (copied,) = run(tmp_path, "--real", real, "--fake", few, "--train", few)
    assert copied["copies_patches"] == 1 and copied["nearest_patches"] < 1e-3 < copied["nearest_patches_real"]
    assert "copied: yes, in part, 1.00 of the samples" in capsys.readouterr().out
    for i in range(6):
        grey = np.full((64, 64, 3), 100 + i, np.uint8)
        save_image(tmp_path / "fog" / f"hazelnut_good_{i:03d}.png", grey)
        save_image(tmp_path / "fog" / f"hazelnut_crack_{i:03d}.png", grey)
    (fog,) = run(tmp_path, "--real", real, "--fake", str(tmp_path / "fog"), "--train", few)
    assert fog["patch_distance"] > 2 and fog["varied"] < 0.5


def test_pictures_that_were_not_to_change_are_compared_one_by_one(tmp_path, capsys):
    sources = ["--real", "generated:hazelnut/test/2", "--fake", "generated:hazelnut/val/2"]
    before, after = write(tmp_path / "a", "val", 2, flat=True), write(tmp_path / "b", "test", 2, flat=True)
    same, other = (run(tmp_path, *sources, "--before", before, "--after", x)[-1] for x in (before, after))
    assert same["drift"] == pytest.approx(0, abs=1e-6) and 0.2 < other["drift"] and same["network"] == "tiny-features"
    (tmp_path / "b" / "hazelnut_good_001.png").unlink()
    with pytest.raises(ValueError, match="hold other pictures, hazelnut_good_001.png is in one of them only"):
        evaluate.main([*sources, "--before", before, "--after", after])
    with pytest.raises(ValueError, match="give both"):
        evaluate.main([*sources, "--before", before])

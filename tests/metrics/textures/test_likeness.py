"""Ranking without a network: noise and fog, defects that are visible, held-out photographs, of three textures.

The pictures beside this file are made by make_sheets.py.
"""

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from data.transforms import to_tensor
from metrics.statistics.corruption import best
from metrics.textures.likeness import Likeness
from training.monitor import monitor

SIDE, ROWS = 32, {"train": 6, "held_out": 4, "visible": 4, "fog": 4}
TEXTURES = ("wood", "fabric", "concrete")


def pictures(texture):
    """{row: uint8 (N, 32, 32, 3)} of a sheet, and noise."""
    sheet = np.asarray(Image.open(Path(__file__).parent / f"{texture}.png"))
    cells = sheet.reshape(len(ROWS), SIDE, 6, SIDE, 3).transpose(0, 2, 1, 3, 4)
    found = {name: row[:count].copy() for (name, count), row in zip(ROWS.items(), cells)}
    return found | {"noise": np.random.default_rng(0).integers(0, 256, (4, SIDE, SIDE, 3), np.uint8)}


def likeness(texture, shown=4):
    return Likeness(to_tensor(pictures(texture)["train"]), ["defect"] * 6, ["defect"] * shown)


@pytest.mark.parametrize("texture", TEXTURES)
def test_noise_and_fog_are_worse_than_visible_defects_and_these_than_photographs(texture):
    distance = likeness(texture)
    found = {name: distance(to_tensor(images[:4]))[0] for name, images in pictures(texture).items()}
    assert found["held_out"] < found["visible"] < min(found["fog"], found["noise"]), found
    assert found["held_out"] < distance.farthest < min(found["fog"], found["noise"]), (found, distance.farthest)


@pytest.mark.parametrize("texture", TEXTURES)
def test_the_monitor_keeps_the_visible_defects_and_not_the_fog(texture):
    found = pictures(texture)
    measure = monitor(found["train"], ["defect"] * 6, ["defect"] * 4, True, torch.device("cpu"), "patches")
    looks = [measure(found[name]) for name in ("noise", "fog", "visible", "fog")]
    assert {look["measured_in"] for look in looks} == {"patches, no network"}
    similarity = [-look["patch_distance"] for look in looks]
    deviations = [(look["patch_distance_deviation"], look["noise_residual_deviation"]) for look in looks]
    assert best([0, 10, 20, 30], similarity, [look["noise_residual"] for look in looks], deviations) == 20


def test_training_images_are_nearest_and_a_class_is_compared_with_its_own():
    wood, fabric = (to_tensor(pictures(name)["train"]) for name in ("wood", "fabric"))
    known = ["wood"] * 6 + ["fabric"] * 6
    right, wrong = (Likeness(torch.cat([wood, fabric]), known, [name] * 6) for name in ("wood", "fabric"))
    assert right(wood)[0] < 1e-6 and wrong(wood)[0] > 0.9
    both = Likeness(torch.cat([wood, fabric]), known, known)
    assert both(torch.cat([wood, fabric]))[0] < 1e-6
    new = Likeness(torch.cat([wood, fabric]), known, ["a prompt"] * 6)  # of no class: compared with all
    assert new.references.keys() == {""}


def test_the_deviation_is_that_of_other_samples_and_one_training_image_has_no_others():
    distance = likeness("wood")
    assert distance(to_tensor(pictures("wood")["held_out"]))[1] > 0
    single = Likeness(to_tensor(pictures("wood")["train"][:1]), ["a"], ["a"] * 4)
    assert single.farthest == 0 and single(to_tensor(pictures("wood")["train"][:1].repeat(4, 0)))[0] < 0.05


def test_decoded_images_set_the_unit():
    """Behind an autoencoder that blurs, blurred photographs are as near as can be."""

    def blurred(x):
        return torch.nn.functional.avg_pool2d(torch.nn.functional.pad(x, (1, 1, 1, 1), mode="replicate"), 3, 1)

    train, held_out = (to_tensor(pictures("concrete")[name]) for name in ("train", "held_out"))
    known, shown = ["a"] * 6, ["a"] * 4
    behind, straight = (Likeness(train, known, shown, *decode)(blurred(held_out))[0] for decode in ([blurred], []))
    assert behind < 1.2 < straight

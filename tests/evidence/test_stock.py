"""The measure of a base model: signal to noise, class accuracy by product, two samples, and the command."""

import json

import numpy as np
import pytest
import torch

from data import ImageSet
from evidence import stock


def test_the_ratio_is_the_mean_and_the_least_of_decibels():
    x = torch.zeros(2, 3, 8, 8)
    y = torch.stack([x[0] + 0.02, x[1] + 0.2])  # errors of a hundredth and a tenth of the range
    assert stock.peak_signal_to_noise(x, y) == pytest.approx({"psnr_mean": 30, "psnr_least": 20})


def test_a_kind_is_short_where_the_judge_knows_fewer_samples_than_decoded_photographs():
    class Classifier:
        name, classes = "classifier", ("nut/good", "pill/good")

        @staticmethod
        def logits(x):  # says what the red channel says
            return torch.stack([-x[:, 0, 0, 0], x[:, 0, 0, 0]], 1)

    labels = torch.tensor([0, 0, 1, 1])
    parents = {"nut/good": "nut", "pill/good": "pill"}
    decoded = ImageSet(
        np.array([0, 0, 255, 255], np.uint8).repeat(12).reshape(4, 2, 2, 3),
        labels,
        list(Classifier.classes),
        [],
        None,
        parents,
    )
    samples = decoded._replace(pixels=np.array([0, 255, 255, 255], np.uint8).repeat(12).reshape(4, 2, 2, 3))
    found = stock.by_product(Classifier, samples, decoded)
    assert found["samples"] == 0.75 and found["decoded"] == 1 and found["short"] == ["nut"]
    assert found["products"]["nut"] == {"samples": 0.5, "decoded": 1}
    with pytest.raises(ValueError, match="does not know 1 of the classes, hat for one"):
        stock.is_right(Classifier, decoded._replace(classes=["nut/good", "hat"]))


def test_two_samples_are_told_apart_only_where_they_differ(monkeypatch):
    monkeypatch.setattr(stock, "STEPS", 30)
    monkeypatch.setattr(stock, "BATCH", 16)
    noise = np.random.default_rng(0).integers(0, 256, (160, 16, 16, 3), np.uint8)
    one, same = (ImageSet(part, torch.zeros(80).long(), ["a"], []) for part in (noise[:80], noise[80:]))
    other = same._replace(pixels=same.pixels // 2)
    assert stock.two_samples(one, other)["right"] > 0.9
    assert 0.3 < stock.two_samples(one, same)["right"] < 0.7


@pytest.mark.parametrize("model", ["tiny-dit", "tiny-sd"])
def test_the_command_measures_what_ships_and_draws_nothing_twice(model, tmp_path, monkeypatch):
    monkeypatch.setattr(stock, "STEPS", 2)
    flags = [
        "--model",
        model,
        "--data",
        "generated:pill/test/2",
        "--steps",
        "2",
        "--work",
        str(tmp_path / "work"),
        "--out",
        str(tmp_path / "stock.json"),
    ]
    stock.main(flags)
    found = json.loads((tmp_path / "stock.json").read_text())
    assert found["two_samples"]["samples"] == 2 * 7 and found["class_accuracy"]["products"].keys() == {"pill"}
    assert found["autoencoder"]["psnr_least"] > 20 and found["autoencoder"]["class_accuracy_real"] > 0.5
    monkeypatch.setattr(stock, "sample_latents", None)  # all is there already
    stock.main(flags)
    assert json.loads((tmp_path / "stock.json").read_text())["class_accuracy"] == found["class_accuracy"]

"""The detector: what its output means, its loss, that it learns, its file, its command, and the scorer to copy."""

import sys

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from metrics.alignment.scores import load_scorer
from metrics.objects import __main__ as command
from metrics.objects import detector
from metrics.objects.boxes import boxes_of
from metrics.objects.precision import average_precision


def squares(count, seed, side=32, red=True):
    """Pictures of noise with a square each, red or green, and the squares' masks."""
    rng = np.random.default_rng(seed)
    pixels = rng.integers(90, 160, (count, side, side, 3)).astype(np.uint8)
    masks = np.zeros((count, side, side), bool)
    for picture, mask in zip(pixels, masks):
        (top, left), length = rng.integers(2, side - 15, 2), rng.integers(8, 13)
        mask[top : top + length, left : left + length] = True
        picture[mask] = (200, 20, 20) if red else (20, 200, 20)
    return pixels, masks


def tensors(count, seed, **options):
    pixels, masks = squares(count, seed, **options)
    return torch.from_numpy(pixels).permute(0, 3, 1, 2) / 127.5 - 1, torch.from_numpy(masks)


@pytest.fixture(scope="module")
def trained():
    x, masks = tensors(40, 0)
    return detector.train_detector(x, masks, tensors(40, 1, red=False)[0], 80)


def logit(p):
    return torch.tensor(p).logit().item()


def test_a_box_is_that_of_the_equations():
    """Of 4 x 4 cells of 8 pixels: the middle a quarter into column 2 and half into row 1, a half and a quarter wide."""
    out = torch.zeros(1, 5, 4, 4)
    out[0, 1:, 1, 2] = torch.tensor([logit(0.25), logit(0.5), logit(0.5), logit(0.25)])
    assert detector.boxes_in(out)[0, 1, 2].tolist() == pytest.approx([18 - 8, 12 - 4, 18 + 8, 12 + 4])


def test_the_loss_is_that_of_the_cells_and_of_the_boxes():
    """A sure and right output costs nothing; a missing object costs its cell and its box."""
    out = torch.full((2, 5, 4, 4), -20.0)
    out[0, :, 1, 2] = torch.tensor([20.0, logit(0.25), logit(0.5), logit(0.5), logit(0.25)])
    truths = [torch.tensor([[10.0, 8, 26, 16]]), torch.zeros(0, 4)]
    assert detector.detection_loss(out, truths).item() == pytest.approx(0, abs=1e-4)
    out[0, 0, 1, 2] = -20.0
    assert detector.detection_loss(out, truths).item() == pytest.approx(20 / 2, abs=1e-3)
    assert detector.detection_loss(out, [torch.zeros(0, 4)] * 2).item() == pytest.approx(0, abs=1e-4)


def test_it_learns_where_red_squares_are_and_passes_green_ones_over(trained):
    (x, masks), (green, _) = tensors(20, 2), tensors(20, 3, red=False)
    found = detector.detect(trained, torch.cat([x, green]))
    truths = [boxes_of(mask) for mask in masks.numpy()] + [torch.zeros(0, 4)] * len(green)
    assert average_precision(found, truths) > 0.9
    red, others = (detector.confidences(trained, squares(20, seed, red=red)[0]) for seed, red in ((2, 1), (3, 0)))
    assert red.min() > others.max()
    assert all((p.diff() <= 0).all() for _, p in found)


def test_larger_pictures_are_brought_to_its_side(trained):
    pixels = squares(5, 2)[0]
    larger = pixels.repeat(2, 1).repeat(2, 2)
    assert detector.confidences(trained, larger) == pytest.approx(detector.confidences(trained, pixels), abs=0.05)


def test_of_two_boxes_on_one_object_the_surer_stays():
    network = detector.Detector(16)
    out = torch.full((1, 5, 2, 2), -20.0)
    out[0, :, 0, 0] = torch.tensor([3.0, 20.0, 20.0, logit(0.5), logit(0.5)])  # both have their middle in (8, 8)
    out[0, :, 1, 1] = torch.tensor([2.0, -20.0, -20.0, logit(0.5), logit(0.5)])
    network.forward = lambda x: out
    [(boxes, p)] = detector.detect(network, torch.zeros(1, 3, 16, 16))
    assert p.tolist() == [pytest.approx(torch.tensor(3.0).sigmoid().item())]
    assert boxes[0].tolist() == pytest.approx([4, 4, 12, 12], abs=1e-3)


def test_a_file_gives_the_same_detector_and_others_are_refused(trained, tmp_path):
    path = tmp_path / "there" / "detector.safetensors"
    detector.save_detector(trained, path, "squares")
    x = tensors(2, 4)[0]
    assert torch.equal(detector.load_detector(path)(x), trained(x))
    with pytest.raises(ValueError, match="no such file; python -m metrics.objects trains a detector"):
        detector.load_detector(tmp_path / "none")
    save_file({"a": torch.zeros(1)}, tmp_path / "other.safetensors")
    with pytest.raises(ValueError, match="expected a detector of this package, found no header"):
        detector.load_detector(tmp_path / "other.safetensors")


@pytest.mark.parametrize("count, others, side", [(0, 2, 32), (2, 0, 32), (2, 2, 30)])
def test_what_it_cannot_learn_from_is_refused(count, others, side):
    x, masks = tensors(2, 0, side=side)
    with pytest.raises(ValueError, match="learns from images with and without the object, of one size, a multiple of"):
        detector.train_detector(x[:count], masks[:count], x[:others], 1)


def test_the_command_trains_measures_and_leaves_a_file_for_the_scorer(tmp_path, capsys, monkeypatch):
    words = ["--data", "generated:hugo_on_black/oracle/1", "--without", "generated:misspelt_on_black/oracle/1"]
    words += ["--val", "generated:hugo_on_props/test/1", "--val-without", "generated:nothing_on_props/test/1"]
    command.main([*words, "--steps", "2", "--vae", "tiny-vae", "--out", str(tmp_path / "detector.safetensors")])
    printed = capsys.readouterr().out
    assert "8 images with objects and 8 without one, 2 steps" in printed
    assert "held out: AP 0." in printed and "decoded by tiny-vae: AP 0." in printed
    assert "of 2 images with the object and 2 without" in printed
    with pytest.raises(ValueError, match="generated:nothing_on_props/test/1: expected images with masks"):
        command.main([*words[:4], "--val", "generated:nothing_on_props/test/1", "--steps", "2"])
    score = load_scorer("examples/detect_and_read.py:score")
    module = sys.modules["scorer_detect_and_read"]
    monkeypatch.setattr(module, "DETECTOR", str(tmp_path / "detector.safetensors"))
    monkeypatch.setattr(module, "load_reader", lambda: lambda images: [["Hug0"]] * len(images))
    scores = score(squares(3, 0)[0])
    assert scores["text"].tolist() == [1, 1, 1] and ((0 <= scores["detector"]) & (scores["detector"] <= 1)).all()

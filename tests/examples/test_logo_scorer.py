"""examples/logo_scorer.py: its confidences tell logos from fakes and from nothing, and it reads the letters."""

import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from data import load
from data.generated import logos
from data.images import decode
from data.transforms import Transform
from metrics.alignment.scores import THRESHOLD, combined, load_scorer

FILE = Path(__file__).parents[2] / "examples" / "logo_scorer.py"


@pytest.fixture(scope="module")
def score():
    return load_scorer(f"{FILE}:score")


@pytest.fixture(scope="module")
def scorer(score):
    return sys.modules["scorer_logo_scorer"]


def photographs(mark, count=1):
    return load(f"generated:{mark}/test/{count}", Transform(64)).pixels


@pytest.fixture(scope="module")
def found(score):
    return {mark: score(photographs(mark)) for mark in logos.MARKS}  # 18 of each


def test_logos_are_found_and_read(found):
    assert found["logo"]["detector"].min() > THRESHOLD and found["logo"]["text"].mean() > 0.9
    assert combined(**found["logo"])["combined"] > 0.85


def test_fakes_are_half_found_and_never_read(found):
    confidence = found["fake"]["detector"]
    assert 0.25 < confidence.min() and np.median(confidence) < 0.60 < THRESHOLD < found["logo"]["detector"].min()
    assert (confidence >= THRESHOLD).mean() < 0.2 and not found["fake"]["text"].any()


def test_where_there_is_no_logo_nothing_is_found(found):
    assert found["nothing"]["detector"].max() < 0.5 and not found["nothing"]["text"].any()
    assert combined(**found["nothing"]) == {"detector": 0, "text": 0, "combined": 0}


def stamped(word, at=(0, 0), size=0.58, turn=0.0):
    """A red box with a word on grey, (64, 64, 3), drawn at twice the size."""
    v, u = np.mgrid[0:128, 0:128] / 64 - 1 + 1 / 128
    box, ink = logos.stamp(u, v, at, size, turn, word)
    picture = 0.6 * (1 - box)[..., None] + (box * (1 - ink))[..., None] * logos.RED + (box * ink)[..., None] * logos.INK
    return (255 * picture.reshape(64, 2, 64, 2, 3).mean((1, 3))).round().astype(np.uint8)


def test_every_word_is_read_as_it_stands(scorer):
    rng = np.random.default_rng(0)
    words = [logos.WORD, *(logos.misspelt(rng) for _ in range(15))]
    images = [
        stamped(word, rng.uniform(-0.2, 0.2, 2), rng.uniform(0.47, 0.67), rng.uniform(-0.15, 0.15)) for word in words
    ]
    assert scorer.read(scorer.redness(np.stack(images))) == words


def test_more_wrong_letters_are_less_of_a_logo(score):
    words = [logos.WORD, "/-||", "//||", "\\/\\|"]  # 0, 1, 2 and 4 letters wrong
    confidence = score(np.stack([stamped(word) for word in words]))["detector"]
    assert confidence[0] > 0.85 and (np.diff(confidence) < -0.05).all()


def test_larger_images_are_brought_to_size_and_empty_ones_score_nothing(score):
    images = photographs("logo")[:3]
    larger = images.repeat(2, 1).repeat(2, 2)
    assert score(larger)["detector"] == pytest.approx(score(images)["detector"], abs=0.03)
    grey = np.full((2, 64, 64, 3), 128, np.uint8)
    red = np.full((2, 64, 64, 3), (200, 20, 20), np.uint8)
    for flat in (grey, red):
        assert (score(flat)["detector"] < 1e-3).all() and not score(flat)["text"].any()


def test_correlations_are_those_of_the_definition(scorer):
    """One place and one template by loops over pixels, in float64."""
    generator = torch.Generator().manual_seed(0)
    x = torch.rand(1, 1, scorer.HIGH + 2, scorer.WIDE + 3, generator=generator)
    kernels = scorer.LOGO[5:6]
    found = scorer.correlate(x, kernels)
    assert found.shape == (1, 1, 3, 4)
    w = kernels[0, 1].double()
    t = torch.where(w > 0, kernels[0, 0].double() / w, 0)  # (t - mean t) / std t
    window = x[0, 0, 1 : 1 + scorer.HIGH, 2 : 2 + scorer.WIDE].double()
    mean = (w * window).sum()
    by_hand = (w * t * (window - mean)).sum() / (w * (window - mean) ** 2).sum().sqrt() / (w * t * t).sum().sqrt()
    assert found[0, 0, 1, 2].item() == pytest.approx(by_hand.item(), abs=1e-4)
    assert scorer.correlate(x * 0 + 0.3, kernels).abs().max() < 1e-3  # an even colour is no pattern


def test_the_command_prints_a_line_for_each_kind(scorer, capsys):
    scorer.main("generated:{}_on_props/test/1")
    rows = [[cell.strip() for cell in line.strip("|").split("|")] for line in capsys.readouterr().out.splitlines()[2:]]
    assert [row[0] for row in rows] == [mark + more for more in ("", ", through tiny-vae") for mark in logos.MARKS]
    assert all(row[1] == "2" and (float(row[-1]) > 0) == row[0].startswith("logo") for row in rows)


def test_its_picture_shows_all_things(scorer, tmp_path):
    scorer.picture(tmp_path / "logos.png")
    height, width, _ = decode(tmp_path / "logos.png").shape
    assert width > 6 * 128 and height > 3 * 128

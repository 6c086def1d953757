"""Detector and text scores: the study's own tables, and scorers that work, fail and lie."""

import numpy as np
import pytest

from metrics.alignment.scores import combined, load_scorer, normalised, passed

# De Man, table 2: method, mean of both, detector, text
STUDY = [
    ("DB 2e-5", 0.724898001, 0.949796001, 0.5),
    ("DB 5e-5", 0.706286823, 0.912573646, 0.5),
    ("DB 1e-5", 0.634524385, 0.602382104, 0.666666667),
    ("LoRA 16", 0.594578506, 0.709990345, 0.479166667),
    ("LoRA 16b", 0.587723781, 0.696280895, 0.479166667),
    ("LoRA 8", 0.550702949, 0.622239232, 0.479166667),
    ("TI 1e-3", 0.545065025, 0.756796718, 0.333333333),
    ("TI 5e-4", 0.291357418, 0.582714836, 0),
    ("TI 1e-6", 0.21148403, 0.42296806, 0),
]
# table 3: normalised score, detector, text; its ranges are of 125 models of which it shows ten
RANKED = [
    (0.976, 0.710, 0.479),
    (0.963, 0.700, 0.479),
    (0.926, 0.7255, 0.417),
    (0.895, 0.694, 0.417),
    (0.889, 0.622, 0.479),
    (0.875, 0.696, 0.396),
    (0.870, 0.690, 0.396),
    (0.861, 0.703, 0.375),
    (0.853, 0.608, 0.458),
    (0.833, 0.654, 0.396),
]


@pytest.mark.parametrize("name, mean, detector, text", STUDY, ids=[row[0] for row in STUDY])
def test_the_combined_score_is_that_of_the_studys_table(name, mean, detector, text):
    """With means that come from 48 images: confidences above the threshold, and hits in the right number of them."""
    hits = np.arange(48) < round(48 * text)
    row = combined(np.full(48, detector), hits, threshold=0)
    assert row["combined"] == pytest.approx(mean, abs=2e-8) and row["text"] == pytest.approx(text, abs=1e-8)


def test_a_confidence_below_the_threshold_counts_as_none():
    assert passed(np.array([0.0, 0.69, 0.70, 1.0])).tolist() == [0, 0, 0.70, 1.0]
    row = combined([0.69, 0.70, 0.9, 0.2], [1, 0, 1, 0])
    assert row == {"detector": pytest.approx(0.4), "text": 0.5, "combined": pytest.approx(0.45)}
    assert combined([0.69], [0], threshold=0.5)["detector"] == pytest.approx(0.69)


@pytest.mark.parametrize("detector, text", [([], []), ([0.9, 0.8], [1])])
def test_a_score_needs_both_numbers_of_every_image(detector, text):
    with pytest.raises(ValueError, match="a confidence and a text hit of each of 1 image or more"):
        combined(detector, text)


def test_the_normalised_score_is_that_of_the_studys_table():
    """Its two unknowns are the least and the largest detector score of all models; the text went from 0 to 23/48."""
    published, detector, text = np.array(RANKED).T
    found = normalised([*detector, 0.228, 0.738], [*text, 0, 23 / 48])[:-2]
    assert np.abs(found - published).max() < 0.006
    assert np.argsort(-found)[:3].tolist() == [0, 1, 2]


def test_the_normalised_score_ranks_one_table():
    assert normalised([0.2, 0.6, 0.4], [0.1, 0.3, 0.3]) == pytest.approx([0, 1, 0.75])
    assert normalised([0.2, 0.6], [0, 0]) == pytest.approx([0, 0.5])  # nobody's word is read


IMAGES = np.arange(3 * 4 * 4 * 3, dtype=np.uint8).reshape(3, 4, 4, 3)

SCORERS = """
from dataclasses import dataclass
import numpy as np
import torch

@dataclass
class Threshold:
    value: "float" = 0.5

answer = 42

def brightness(images):
    return images.mean((1, 2, 3)) / 255

def both(images):
    return {"detector": torch.full((len(images),), 0.75), "text": [True, False, True]}

def painter(images):
    images[:] = 0
    return images.sum((1, 2, 3))

def one_number(images):
    return images.mean()

def too_many(images):
    return {"detector": np.ones(len(images)), "text": np.ones(len(images) + 1)}

def not_finite(images):
    return [1.0, float("nan"), float("inf")]

def words(images):
    return ["hugo"] * len(images)

def nothing(images):
    pass

def no_score(images):
    return {}

def on_a_graph(images):
    return torch.ones(len(images), requires_grad=True)

def breaks(images):
    return images["detector"]
"""


@pytest.fixture
def file(tmp_path):
    path = tmp_path / "my_scorers.py"
    path.write_text(SCORERS)
    return path


def test_a_function_of_a_file_scores_images(file):
    found = load_scorer(f"{file}:brightness")(IMAGES)
    assert found.keys() == {"brightness"} and found["brightness"].dtype == np.float64
    assert found["brightness"] == pytest.approx(IMAGES.reshape(3, -1).mean(1) / 255)


def test_a_function_may_return_several_scores(file):
    found = load_scorer(f"{file}:both")(IMAGES)
    assert combined(**found) == {"detector": 0.75, "text": pytest.approx(2 / 3), "combined": pytest.approx(17 / 24)}


def test_a_function_of_a_module_scores_images(file, monkeypatch):
    monkeypatch.syspath_prepend(file.parent)
    assert load_scorer("my_scorers:both")(IMAGES)["text"].tolist() == [1, 0, 1]


def test_a_scorer_cannot_paint_over_the_images(file):
    images = IMAGES.copy()
    assert load_scorer(f"{file}:painter")(images)["painter"].tolist() == [0, 0, 0]
    assert np.array_equal(images, IMAGES)


@pytest.mark.parametrize(
    "function, words",
    [
        ("one_number", r"one_number: expected one number for each of 3 images, found shape \(\)"),
        ("too_many", r"too_many, text: expected one number for each of 3 images, found shape \(4,\)"),
        ("not_finite", "not_finite: expected finite numbers, found nan for image 1"),
        ("words", "words: expected 3 numbers, found list"),
        ("nothing", r"nothing: expected one number for each of 3 images, found shape \(\)"),
        ("no_score", "no_score returned a dict without a score"),
        ("on_a_graph", "on_a_graph: expected 3 numbers, found Tensor"),
        ("breaks", "breaks raised IndexError: only integers"),
    ],
)
def test_what_a_scorer_returns_is_checked(file, function, words):
    with pytest.raises(ValueError, match=f"my_scorers.py:{words}"):
        load_scorer(f"{file}:{function}")(IMAGES)


@pytest.mark.parametrize("text", ["my_scorers", "my_scorers.py", ":score", "my_scorers.py:", "my_scorers.py:a.b", ""])
def test_a_name_that_is_none(text):
    with pytest.raises(ValueError, match="a scorer is named module:function or file.py:function, found"):
        load_scorer(text)


def test_a_scorer_that_is_not_there(file):
    with pytest.raises(ValueError, match=r"there is no file .*nowhere.py$"):
        load_scorer(f"{file.parent}/nowhere.py:score")
    with pytest.raises(ValueError, match=r"my_scorers.py has no function score$"):
        load_scorer(f"{file}:score")
    with pytest.raises(ValueError, match=r"my_scorers.py has no function answer$"):
        load_scorer(f"{file}:answer")
    with pytest.raises(
        ValueError,
        match="scorer no_such_module:score: importing no_such_module ended with "
        "ModuleNotFoundError: No module named 'no_such_module'",
    ):
        load_scorer("no_such_module:score")


@pytest.mark.parametrize(
    "source, words",
    [
        ("import no_such_detector", "ModuleNotFoundError: No module named 'no_such_detector'"),
        ("def score(images:", "SyntaxError"),
        ("import sys; sys.exit('usage: ...')", "SystemExit: usage"),
    ],
)
def test_a_file_that_cannot_be_imported(tmp_path, source, words):
    (tmp_path / "broken.py").write_text(source)
    with pytest.raises(ValueError, match=f"importing .*broken.py ended with {words}"):
        load_scorer(f"{tmp_path}/broken.py:score")

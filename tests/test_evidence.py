"""The evidence page: what a verdict is, that the page says what the files say, and the finder of defects."""

from importlib import import_module
from pathlib import Path

import numpy as np
import pytest
import torch

import evidence
from evidence import finder
from evidence.__main__ import CLAIMS, main, page

DOCS = Path(__file__).parent.parent / "docs"


@pytest.mark.parametrize(
    "more, less, said",
    [
        ([3, 4, 5], [0, 1, 2], "holds here"),
        ([0, 1, 2], [3, 4, 5], "the reverse holds here"),
        ([1, 2, 3], [3, 4, 5], "no difference beyond the spread of the runs"),
    ],
)
def test_a_verdict_wants_every_run_of_one_above_every_run_of_the_other(more, less, said):
    assert evidence.verdict(more, less) == said
    assert evidence.verdicts({"it is": evidence.below(less, more)}) == f"\n- it is: **{said}**\n"


def test_a_spread_is_the_mean_and_the_range():
    assert evidence.spread([0.5, 1.0, 0.6]) == "0.70 (0.50 to 1.00)" and evidence.spread([2.0], 0) == "2"


def test_numbers_are_chosen_by_what_their_rows_say():
    rows = [{"method": method, "way": way, "n": n} for method, way, n in (("a", "x", 1), ("a", "y", 2), ("b", "x", 3))]
    assert evidence.of(rows, "n", method="a") == [1, 2] and evidence.of(rows, "n", way="x", method="b") == [3]


def test_the_page_is_made_of_the_files_beside_it():
    assert (DOCS / "evidence.md").read_text() == page(DOCS / "evidence")


@pytest.mark.parametrize("name", CLAIMS)
def test_every_claim_says_who_claimed_it_and_has_its_parts(name):
    module = import_module(f"evidence.{name}")
    assert "Here:" in module.__doc__ and module.numbers and module.section


def test_unknown_claims():
    with pytest.raises(ValueError, match="unknown claim 'start'; there are starts, superclass"):
        main(["--claim", "start"])


def test_overlap_of_what_was_found_with_what_was_asked_for():
    """A finder that answers the red channel: found where red, in half of the images where it was asked for."""

    def red(x):
        return x[:, 0]

    masks = np.zeros((2, 16, 16), bool)
    masks[:, :4, :4] = True
    pixels = np.zeros((2, 16, 16, 3), np.uint8)
    pixels[0, :4, :4] = 255  # all of the mask
    pixels[1, 8:12, :4] = 255  # elsewhere
    assert finder.overlap(red, pixels, masks) == (0.5, 0.5)
    pixels[1] = 0
    pixels[1, 2:6, :4] = 255  # half of it, and as much beside it
    iou, hit = finder.overlap(red, pixels, masks)
    assert iou == pytest.approx((1 + 1 / 3) / 2) and hit == 1
    assert finder.share_near(masks) == 36 / 256


def test_the_finder_learns_where_defects_are_and_is_read_back(tmp_path):
    path = tmp_path / "finder.safetensors"
    torch.manual_seed(1)
    found = finder.trained("hazelnut", path, 60, 6)
    images = evidence.finder.load("generated:hazelnut/test/4", finder.Transform(64))
    marked = images.labels > 0
    with torch.no_grad():
        logits = found(finder.to_tensor(images.pixels))
    inside = logits[torch.from_numpy(images.masks)].mean()
    assert inside > logits[~torch.from_numpy(images.masks)].mean() + 0.2 and marked.any()
    again = finder.trained("hazelnut", path, 60, 6)
    with torch.no_grad():
        assert torch.equal(again(finder.to_tensor(images.pixels)), logits)

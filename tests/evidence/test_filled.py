"""The claim of filled defects: what its arms are made of, and its page from numbers; no training."""

import numpy as np
import pytest
import torch

from data import load
from data.transforms import Transform
from evidence.claims.classifiers import filled
from evidence.results import HOLDS, NEITHER
from evidence.steps import SIDE


@pytest.fixture(scope="module")
def few():
    return load("generated:hazelnut/few/4", Transform(SIDE))


def test_draws_share_no_photograph(few):
    first, second = filled.some_of(few, range(2)), filled.some_of(few, range(2, 4))
    assert not set(first.names) & set(second.names) and first.classes == filled.CLASSES
    assert torch.equal(first.labels, torch.arange(5).repeat_interleave(2))


def test_the_few_are_written_as_a_tree_with_their_masks(few, tmp_path):
    tree = filled.written(tmp_path / "few", few)
    back = load(str(tree), Transform(SIDE))
    assert sorted(back.classes) == sorted(few.classes) and len(back.pixels) == 20
    assert back.masks.any((1, 2)).sum() == few.masks.any((1, 2)).sum()
    good = filled.written(tmp_path / "good", few, ("good",))
    assert sorted(path.name for path in good.iterdir()) == [f"{i:03d}.png" for i in range(4)]


def test_moved_and_procedural_defects_lie_on_the_good_photographs(few):
    grounds = list(few.pixels[:4])
    x, masks, labels = filled.moved(few, grounds, 2, 0)
    assert x.shape == (8, 3, SIDE, SIDE) and labels.tolist() == [1, 1, 2, 2, 3, 3, 4, 4] and masks.any((1, 2)).all()
    again = filled.moved(few, grounds, 2, 0)
    assert torch.equal(again[0], x)
    x, masks, _ = filled.procedural(grounds, 6, 0)
    plain = torch.stack([torch.from_numpy(np.array(g)) for g in grounds]).permute(0, 3, 1, 2) / 127.5 - 1
    for image, mask in zip(x, masks):
        same = (plain - image).abs().amax(1) < 1e-6
        assert same.flatten(1).float().mean(1).max() > 0.8 and not same[:, mask > 0].all(1).any()


def test_the_page_says_what_the_numbers_say():
    arms = ["real", "real, strong", "real + blended", "real + inpaint", "real + ControlNet", "real + moved"]
    arms += ["real + inpaint, whole", "real + procedural", "real + shuffled", "real + more real"]
    level = {"real + inpaint": 0.6, "real + moved": 0.5, "real + more real": 0.7}
    segmentation = {
        arm: [dict(ap=level.get(arm, 0.3) + d, auroc=0.9, f1_max=0.5, pro=0.6) for d in (0, 0.01, 0.02)] for arm in arms
    }
    recalls = {arm: [[0.5 + d] * 5 for d in (0, 0.01, 0.02)] for arm in [*arms, "real + without mask"]}
    sizes = dict(draws=3, shots=5, count=9, good=9, test=9, steps=9)
    overlap = {"blended": [[0.5, 0.9]] * 3, "inpaint": [[0.6, 0.9]] * 3}
    found = filled.result(dict(segmentation=segmentation, recalls=recalls, overlap=overlap, sizes=sizes))
    assert [s.verdict for s in found.statements] == [HOLDS, "the reverse holds", HOLDS, HOLDS, HOLDS, NEITHER]
    assert "best control (real + moved)" in found.statements[0].text and "3 draws of 5 photographs" in found.details

"""Images against prompts, on features of which the cosines are known, and against torchmetrics' CLIP scores."""

import math

import pytest
import torch

from data.generated import logos, makers, photographs
from metrics.alignment.prompts import PAIRS, alternatives, choose, clip_iqa, clip_t, prompt_accuracy


def at_angles(*degrees):
    """Unit vectors in a plane, each times another length: lengths must not count."""
    radians = torch.tensor(degrees, dtype=torch.float64).deg2rad()
    return torch.stack([radians.cos(), radians.sin()], 1) * torch.arange(1, len(degrees) + 1)[:, None]


def drawn(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def test_clip_t_is_the_cosine_of_an_image_and_its_own_prompt():
    assert clip_t(at_angles(0, 90, 180), at_angles(60, 90, 0)).tolist() == pytest.approx([0.5, 1, -1])
    assert clip_t(at_angles(0, 60), at_angles(60)).tolist() == pytest.approx([0.5, 1])  # one prompt for all
    with pytest.raises(ValueError, match="each of 3 images with its prompt, found 2 prompts"):
        clip_t(at_angles(0, 90, 180), at_angles(60, 90))


def test_probabilities_are_the_softmax_of_scaled_cosines():
    p = choose(at_angles(0, 30), at_angles(0, 90, 60), 10.0)
    by_hand = [[math.exp(10 * math.cos(math.radians(a - b))) for b in (0, 90, 60)] for a in (0, 30)]
    assert p.shape == (2, 3)
    for row, weights in zip(p.tolist(), by_hand):
        assert row == pytest.approx([weight / sum(weights) for weight in weights])


def test_iqa_is_the_share_of_the_first_of_two_prompts():
    images, pair = drawn(6, 8), drawn(2, 8, seed=1)
    good = clip_iqa(images, pair, 5.0)
    assert good.shape == (6,) and ((0 < good) & (good < 1)).all()
    assert good.tolist() == pytest.approx((1 - clip_iqa(images, pair.flip(0), 5.0)).tolist())  # swapped prompts
    assert clip_iqa(images, pair[:1].repeat(2, 1), 100.0).tolist() == pytest.approx([0.5] * 6)
    assert all(len(prompts) == 2 for prompts in PAIRS.values())
    with pytest.raises(ValueError, match="compares 2 opposite prompts, found 3"):
        clip_iqa(images, drawn(3, 8), 100.0)


def test_iqa_and_clip_t_are_those_of_torchmetrics():
    """The parts of its functions that begin with features."""
    iqa = pytest.importorskip("torchmetrics.functional.multimodal.clip_iqa")
    images, pair = torch.nn.functional.normalize(drawn(5, 8)), torch.nn.functional.normalize(drawn(2, 8, seed=1))
    theirs = iqa._clip_iqa_compute(images, pair, ["quality"], format_as_dict=False)
    assert clip_iqa(images, pair, 100.0).tolist() == pytest.approx(theirs.tolist(), abs=1e-5)
    pairwise = pytest.importorskip("torchmetrics.functional.pairwise")
    texts = drawn(5, 8, seed=2)
    theirs = pairwise.pairwise_cosine_similarity(images, texts).diagonal()
    assert clip_t(images, texts).tolist() == pytest.approx(theirs.tolist(), abs=1e-6)


def test_prompt_accuracy_counts_the_images_whose_prompt_is_the_likeliest():
    colours = torch.tensor([[0.7, 0.2, 0.1], [0.3, 0.4, 0.3], [0.5, 0.25, 0.25], [0.6, 0.0, 0.4]])
    garments = torch.tensor([[0.1, 0.9]])
    mean = (0.7 + 0.3 + 0.5 + 0.6 + 0.1) / 5
    chance = (4 / 3 + 1 / 2) / 5
    assert prompt_accuracy([colours, garments]) == {
        "images": 5,
        "accuracy": pytest.approx(0.6),
        "probability": pytest.approx(mean),
        "chance": pytest.approx(chance),
    }


def test_prompt_accuracy_of_features_that_know_nothing_is_chance():
    images, prompts = drawn(3000, 16), drawn(4, 16, seed=1)
    row = prompt_accuracy(
        [choose(images[i::4], prompts.roll(-i, 0), 1.0) for i in range(4)]
    )  # each prompt is true in turn
    assert row["chance"] == 0.25
    assert row["accuracy"] == pytest.approx(0.25, abs=0.03) and row["probability"] == pytest.approx(0.25, abs=0.01)


def test_a_tie_is_not_right():
    row = prompt_accuracy([torch.full((3, 4), 0.25)])
    assert row == {"images": 3, "accuracy": 0, "probability": 0.25, "chance": 0.25}


@pytest.mark.parametrize("shapes", [[(0, 3)], [(2, 3), (2, 1)]])
def test_prompt_accuracy_needs_images_and_something_to_choose_from(shapes):
    with pytest.raises(ValueError, match="an image or more and two prompts at least"):
        prompt_accuracy([torch.ones(shape) for shape in shapes])


def test_alternatives_differ_from_the_true_prompt_in_one_attribute():
    prompts = alternatives("a {blue|black|red} {sweater|hat} with a logo")
    assert prompts == [
        "a blue sweater with a logo",
        "a black sweater with a logo",
        "a red sweater with a logo",
        "a blue hat with a logo",
    ]
    assert alternatives("a sweater{ with a logo|}") == ["a sweater with a logo", "a sweater"]


@pytest.mark.parametrize(
    "template, words",
    [
        ("a blue sweater", "stand in braces"),
        ("a {blue|black sweater", "stand in braces"),
        ("a {blue|{light|dark} red} hat", "stand in braces"),
        ("a blue|{black|red} hat", "stand in braces"),
        ("a {blue} hat", r"each once, found \{blue\}"),
        ("a {blue|red|blue} hat", r"each once, found \{blue\|red\|blue\}"),
    ],
)
def test_templates_that_offer_no_choice(template, words):
    with pytest.raises(ValueError, match=words):
        alternatives(template)


@pytest.mark.parametrize("maker", [photographs, logos], ids=["defects", "logos"])
def test_the_grammar_of_generated_photographs_gives_alternatives(maker):
    """The true class first, then classes that differ in that attribute, all of them real and with other captions."""
    for product in maker.PRODUCTS:
        for state in maker.PRODUCT_STATES[product]:
            for classes in maker.alternatives(product, state).values():
                captions = [makers.caption(*found) for found in classes]
                assert classes[0] == (product, state) and len(set(captions)) == len(captions) > 1
                assert all(other in makers.states(name) for name, other in classes)


def test_alternatives_of_two_photographs():
    screw = photographs.alternatives("screw", "bent")
    bent = ("screw", "metal_nut", "zipper", "cable", "spring", "key", "leaf", "toothbrush")
    assert screw["product"] == [(name, "bent") for name in bent]
    assert screw["state"][1:] == [("screw", s) for s in ("good", "cut", "scratch", "contamination")]
    blue = logos.alternatives("logo_on_blue", "hat")
    assert blue["colour"] == [(f"logo_on_{colour}", "hat") for colour in ("blue", "black", "green", "white")]
    assert blue["thing"][1:] == [("logo_on_blue", name) for name in ("t-shirt", "sweater", "shorts")]
    assert blue["logo"][1:] == [("nothing_on_blue", "hat"), ("fake_on_blue", "hat")]
    assert logos.alternatives("logo_on_props", "perfume").keys() == {"thing", "logo"}

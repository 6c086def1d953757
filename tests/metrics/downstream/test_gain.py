"""Downstream gain: what the arms are, that more data gains and wrong labels do not, and what the seed decides."""

import math

import pytest
import torch

from metrics.downstream import gain
from metrics.downstream.gain import arms, augmented, balanced_batch, probe, recalls
from metrics.networks.features import Features

CLASSES, SIDE = 2, 16


def dots(count, seed):
    """`count` images a class of a bright or a dark dot on a background of any grey: (2 count, 3, S, S) and labels."""
    generator = torch.Generator().manual_seed(seed)
    y = torch.arange(CLASSES).repeat(count)
    x = torch.empty(len(y), 1, 1, 1).uniform_(-0.5, 0.5, generator=generator).repeat(1, 3, SIDE, SIDE)
    for image, label in zip(x, y):
        top, left = torch.randint(1, SIDE - 4, (2,), generator=generator).tolist()
        image[:, top : top + 3, left : left + 3] += 0.5 - label
    return x, y


@pytest.fixture(autouse=True)
def small(monkeypatch):
    monkeypatch.setattr(gain, "WIDTHS", (8, 16))
    monkeypatch.setattr(gain, "BATCH", 16)
    monkeypatch.setattr(gain, "LR", 4e-3)


def accuracy(sources, strong=False):
    return sum(recalls(probe(sources, CLASSES, 0, strong, steps=40), *dots(50, 9), CLASSES)) / CLASSES


def test_more_real_images_gain():
    made = arms(dots(2, 11), dots(2, 21), more=dots(40, 21))
    assert accuracy(*made["oracle"]) > accuracy(*made["real"]) + 0.1


def test_synthetic_images_gain_by_their_labels():
    made = arms(dots(2, 11), dots(40, 21))
    assert accuracy(*made["real + synthetic"]) > accuracy(*made["real + shuffled"]) + 0.1


def test_arms():
    real, synthetic = dots(2, 1), dots(4, 2)
    made = arms(real, synthetic)
    assert "oracle" not in made and made["real"] == ([real], False) and made["real, strong"] == ([real], True)
    assert made["real twice"][0] == [real, real]
    x, y = made["real + shuffled"][0][1]
    assert torch.equal(x, synthetic[0]) and not torch.equal(y, synthetic[1])
    assert torch.equal(y.sort().values, synthetic[1].sort().values)


@pytest.mark.parametrize("strong", [False, True])
def test_the_seed_decides_the_probe_and_nothing_else_is_touched(strong):
    x, y = dots(2, 1)
    before, state = x.clone(), torch.get_rng_state()
    one, two, other = (probe([(x, y)], CLASSES, seed, strong, steps=3) for seed in (0, 0, 1))
    assert torch.equal(x, before) and torch.equal(torch.get_rng_state(), state)
    assert all(torch.equal(a, b) for a, b in zip(one.parameters(), two.parameters()))
    assert not torch.equal(one.head.weight, other.head.weight)


def test_a_batch_has_the_same_number_of_every_class_and_source():
    real, synthetic = dots(1, 1), (torch.full((8, 3, SIDE, SIDE), 3.0), torch.tensor([0] * 7 + [1]))
    rows = [[(y == label).nonzero()[:, 0] for label in range(CLASSES)] for _, y in (real, synthetic)]
    x, y = balanced_batch([real, synthetic], rows, torch.Generator().manual_seed(0))
    from_synthetic = (x == 3).all((1, 2, 3))
    assert len(x) == gain.BATCH
    assert all(((y == label) & (from_synthetic == source)).sum() == 4 for label in (0, 1) for source in (True, False))


def test_augmentation_turns_and_the_strong_one_alters_within_the_range():
    x = dots(8, 1)[0]
    turned = augmented(x, torch.Generator().manual_seed(0))
    strong = augmented(x, torch.Generator().manual_seed(0), strong=True)
    ways = [way.rot90(k, (2, 3)) for way in (x, x.flip(-1)) for k in range(4)]
    assert all(any(torch.equal(way[i], turned[i]) for way in ways) for i in range(len(x)))
    assert not torch.equal(turned, x)
    assert strong.shape == x.shape and strong.abs().max() <= 1
    assert ((strong == 0).all(1).flatten(1).sum(1) >= (SIDE // 4) ** 2).all()  # the square that is covered


def test_a_probe_may_start_as_a_trained_network_in_bfloat16():
    start = Features(5, SIDE, (8, 16), 16)
    before = {name: p.clone() for name, p in start.state_dict().items()}
    plain, half = (probe([dots(2, 1)], CLASSES, 0, start=start, steps=2, bf16=bf16) for bf16 in (False, True))
    assert plain.head.out_features == CLASSES
    assert all(torch.equal(p, before[name]) for name, p in start.state_dict().items())
    drift = max((plain.state_dict()[name] - p).abs().max() for name, p in before.items() if "head" not in name)
    assert 0 < drift < 0.1 and not torch.equal(plain.head.weight, half.head.weight)


def test_recalls_are_those_of_a_known_answer():
    class Bright(torch.nn.Module):
        def forward(self, x):
            return torch.stack([-x.mean((1, 2, 3)), x.mean((1, 2, 3))], 1)

    x = torch.tensor([-1.0, -1, 1, 1, 1]).reshape(-1, 1, 1, 1).expand(-1, 3, 4, 4)
    assert recalls(Bright(), x, torch.tensor([0, 0, 0, 1, 1]), 2) == [pytest.approx(2 / 3), 1.0]


def test_the_interval_is_students():
    mean, half = gain.gain([0.8, 0.9, 0.7], [0.6, 0.8, 0.6])
    assert mean == pytest.approx(0.4 / 3) and half == pytest.approx(4.302653 * 0.0577350 / math.sqrt(3), rel=1e-5)
    assert gain.gain([0.8], [0.5])[0] == pytest.approx(0.3) and math.isnan(gain.gain([0.8], [0.5])[1])


def test_what_cannot_be_compared():
    with pytest.raises(ValueError, match="seed by seed, found 2 and 1"):
        gain.gain([0.1, 0.2], [0.1])
    x, y = dots(2, 1)
    with pytest.raises(ValueError, match="source 1 has no image of class 1"):
        probe([(x, y), (x, torch.zeros_like(y))], CLASSES, 0)

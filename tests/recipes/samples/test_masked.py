"""What is looked at while a model trains on masks."""

from types import SimpleNamespace

import numpy as np
import torch

from config.training import Sampling
from ops.device import Compute
from recipes.samples.masked import evaluate_masks
from sampling import Schedule, sample_seeds
from tests.fakes import images


def test_the_largest_masks_are_looked_at_first(tmp_path, monkeypatch):
    shown = images(["a", "b"])._replace(masks=np.zeros((4, 16, 16), bool))
    for i, side in enumerate((2, 0, 8, 4)):
        shown.masks[i, :side, :side] = True
    compute = Compute(torch.device("cpu"), "fp32")
    condition = SimpleNamespace(
        images=shown, compute=compute, latent_shape=(), schedule=Schedule.linear(), model=None, vae=None
    )
    condition.kinds = lambda: [shown.classes[label] for label in shown.labels]
    asked, samples = [], np.zeros((8, 16, 16, 3), np.uint8)
    monkeypatch.setattr("recipes.samples.masked.batched_cfg", lambda *_, hint: asked.append(hint.tolist()))
    seeds = []
    monkeypatch.setattr("recipes.samples.masked.sample_images", lambda *args: seeds.extend(args[6]) or samples)

    def cond(rows):
        asked.append(rows.tolist())
        return rows, None

    assert evaluate_masks(condition, cond, torch.arange(4) * 10, Sampling(), 2, 7)(tmp_path, 3) == {"step": 3}
    classes = ["a" if number in (0, 1) else "b" for number in asked[0]]
    assert seeds == sample_seeds(7, classes)  # as sample.py has them for these classes
    assert asked == [[2, 2, 3, 3, 0, 0, 1, 1], [20, 20, 30, 30, 0, 0, 10, 10]]
    assert {file.name for file in tmp_path.rglob("*.png")} == {"step_000003.png", "nearest.png"}

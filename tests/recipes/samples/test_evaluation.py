"""What is looked at while a model trains."""

import re
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from config.training import Sampling
from ops.device import Compute
from recipes.samples.evaluation import by_column, check_steps, evaluate_masks, reconstruct
from sampling import Flow, Schedule, sample_seeds
from tests.fakes import images
from unet import VAE, VAEConfig


def test_a_reconstruction_is_the_image_encoded_and_decoded_whatever_the_scale():
    torch.manual_seed(0)
    vae = VAE(VAEConfig(latent_channels=2, channels=(8, 16), layers=1, groups=4, scaling_factor=0.25)).eval()
    x = torch.rand(18, 3, 8, 8) * 2 - 1
    with torch.no_grad():
        expected = vae.decode(vae.encode(x)[0]).clamp(-1, 1)
    torch.testing.assert_close(reconstruct(vae, x), expected, atol=1e-5, rtol=0)


@pytest.mark.parametrize(
    ("path", "sampler", "steps", "words"),
    [
        (Schedule.linear(), "ddim", 1, "between 2 and 1000, found 1"),
        (Schedule.linear(), "dpm++", 1001, "between 2 and 1000, found 1001"),
        (Schedule.linear(), "lcm", 51, "takes 1 to 50 steps.* found 51"),
        (Flow(), "sde", 1, "must be at least 2, found 1"),
    ],
)
def test_steps_that_a_sampler_cannot_take_are_refused_before_training(path, sampler, steps, words):
    with pytest.raises(ValueError, match=f"^--sample-steps {steps}, --sampler {re.escape(sampler)}: .*{words}$"):
        check_steps(path, Sampling(sampler=sampler, sample_steps=steps))
    check_steps(path, Sampling(sampler=sampler, sample_steps=4))


def test_samples_stand_under_their_columns():
    assert by_column(["a", "b"], [1, 2, 3, 4]) == {"a": [1, 2], "b": [3, 4]}


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
    monkeypatch.setattr("recipes.samples.evaluation.batched_cfg", lambda *_, hint: asked.append(hint.tolist()))
    seeds = []
    monkeypatch.setattr("recipes.samples.evaluation.sample_images", lambda *args: seeds.extend(args[6]) or samples)

    def cond(rows):
        asked.append(rows.tolist())
        return rows, None

    assert evaluate_masks(condition, cond, torch.arange(4) * 10, Sampling(), 2, 7)(tmp_path, 3) == {"step": 3}
    classes = ["a" if number in (0, 1) else "b" for number in asked[0]]
    assert seeds == sample_seeds(7, classes)  # as sample.py has them for these classes
    assert asked == [[2, 2, 3, 3, 0, 0, 1, 1], [20, 20, 30, 30, 0, 0, 10, 10]]
    assert {file.name for file in tmp_path.rglob("*.png")} == {"step_000003.png", "nearest.png"}

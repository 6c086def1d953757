"""What is looked at while a model trains."""

import re

import pytest
import torch

from config.training import Sampling
from recipes.samples.evaluation import by_column, check_steps, reconstruct
from sampling import Flow, Schedule
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

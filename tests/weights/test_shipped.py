"""The models that come with the package: small, whole, and good for what they are shipped for."""

from pathlib import Path

import pytest
import torch

import weights
from data import load
from data.generated.photographs import BASE, PRODUCT_STATES
from data.transforms import Transform, to_tensor
from metrics.networks import features
from metrics.networks.features import embed
from sampling import Schedule, batched_cfg, sample_latents

SHIPPED = Path(weights.__file__).parent
STATES = [f"hazelnut/{state}" for state in PRODUCT_STATES["hazelnut"]]


@pytest.fixture(scope="module")
def judge():
    return features.load_classifier(SHIPPED / "tiny-features" / "model.safetensors")


@pytest.fixture(scope="module")
def hazelnuts():
    images = load("generated:hazelnut/test/20", Transform(64))
    return to_tensor(images.pixels), images.labels


@pytest.mark.parametrize("name", ["tiny-vae", "tiny-dit", "tiny-features"])
def test_each_is_small_and_has_a_card_with_its_command(name):
    assert (SHIPPED / name / "model.safetensors").stat().st_size < 12.5e6
    assert f"python train.py configs/{name.replace('-', '_')}.toml" in (SHIPPED / name / "README.md").read_text()


def test_the_dit_knows_the_states_of_the_base_products_and_no_target():
    model, vae = weights.load("tiny-dit", expect="dit"), weights.load("tiny-vae", expect="vae")
    assert model.classes == [f"{product}/{state}" for product in BASE for state in PRODUCT_STATES[product]]
    assert model.config.in_channels == vae.config.latent_channels and model.config.input_size * vae.factor == 64


def asked(judge, x, labels):
    network, names = judge
    logits = embed(network, x)[1][:, [names.index(state) for state in STATES]]
    return (logits.argmax(1) == labels).float().mean().item()


def test_the_judge_tells_the_states_of_photographs_it_has_not_seen(judge, hazelnuts):
    assert asked(judge, *hazelnuts) > 0.9


@torch.no_grad()
def test_defects_survive_the_autoencoder(judge, hazelnuts):
    """The ceiling of what the samples can reach: the judge on photographs that went through the latents."""
    x, labels = hazelnuts
    vae = weights.load("tiny-vae", dtype=torch.float32)
    mean, _ = vae.encode(x)
    assert asked(judge, vae.decode(mean).clamp(-1, 1), labels) > 0.82
    assert (vae.config.scaling_factor * mean).std().item() == pytest.approx(1, abs=0.3)


@torch.no_grad()
def test_the_dit_draws_the_states_that_it_was_trained_on(judge):
    """By the judge, among the seven states of a tile; chance is one in seven."""
    network, names = judge
    model, vae = (weights.load(name, dtype=torch.float32) for name in ("tiny-dit", "tiny-vae"))
    tiles = [label for label, name in enumerate(model.classes) if name.startswith("tile/")]
    labels = torch.tensor(tiles).repeat_interleave(3)
    denoiser = batched_cfg(model, labels, model.null, 2.0)
    z = sample_latents(denoiser, range(21), model.latent_shape, Schedule.linear(), steps=20, batch=21)
    logits = embed(network, vae.images(z).clamp(-1, 1))[1][:, [names.index(model.classes[label]) for label in tiles]]
    assert (logits.argmax(1) == labels - tiles[0]).float().mean() > 0.6

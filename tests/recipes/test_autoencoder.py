"""The autoencoder's scaling factor, and the recipe on a tiny model."""

from dataclasses import replace

import pytest
import torch
from PIL import Image

import weights
from ops.device import Compute
from recipes.autoencoder import autoencoder, recoloured, set_scale
from recipes.settings import check
from unet import VAE, VAEConfig

SETTINGS = {
    "recipe": "autoencoder",
    "data": "generated:hazelnut/few/1",
    "val": "generated:hazelnut/val/1",
    "adapter": ["full"],
    "size": 16,
}


def job_of(**settings):
    return autoencoder(check(SETTINGS | settings), Compute(torch.device("cpu"), "fp32"))


def test_scaled_latents_have_unit_variance():
    torch.manual_seed(0)
    model = VAE(VAEConfig(latent_channels=2, channels=(8, 8), layers=1, groups=4, scaling_factor=1.0))
    x = torch.rand(70, 3, 8, 8) * 2 - 1
    set_scale(model, lambda index, generator: {"x": x[index]}, 70, "cpu")
    with torch.no_grad():
        latents = model.encode(x)[0] * model.config.scaling_factor
    assert latents.std().item() == pytest.approx(1, rel=1e-3) and model.config.scaling_factor != 1


def test_the_config_that_a_model_was_made_from_is_left_alone():
    config = VAEConfig(latent_channels=2, channels=(8,), layers=1, groups=4, scaling_factor=1.0)
    before = replace(config)
    set_scale(VAE(config), lambda index, generator: {"x": torch.rand(2, 3, 4, 4)}, 2, "cpu")
    assert config == before


def test_the_recipe_learns_evaluates_and_leaves_a_model_with_its_scale(tmp_path):
    job = job_of(model="new:VAE-T")
    generator = torch.Generator().manual_seed(0)
    loss, numbers = job.loss(job.batch(torch.arange(2), generator), generator, 0.0)
    loss.backward()
    assert loss.item() > 0 and numbers.keys() == {"mse", "kl"}
    assert all(p.grad is not None and p.grad.isfinite().all() for p in job.model.parameters())
    assert (
        job.evaluate(tmp_path, 0) == job.evaluate(tmp_path, 0) and (tmp_path / "samples" / "step_000000.png").is_file()
    )
    job.finish(tmp_path)
    again = weights.load(tmp_path / "model.safetensors")
    assert again.config.scaling_factor == job.model.config.scaling_factor != 1


def test_of_a_checkpoint_only_the_decoder_trains(tiny, tmp_path):
    """Diffusion models live in the latents that its encoder makes, and in their scale."""
    before = weights.load(tiny / "vae.safetensors")
    job = job_of(model=str(tiny / "vae.safetensors"))
    named = dict(job.model.named_parameters())
    assert {name.split(".")[0] for name in named if named[name].requires_grad} == {"decoder", "post_quant_conv"}
    job.finish(tmp_path)
    assert weights.load(tmp_path / "model.safetensors").config.scaling_factor == before.config.scaling_factor


def test_nothing_held_out_and_an_unknown_size(tiny, tmp_path):
    (tmp_path / "crack").mkdir()
    Image.new("RGB", (16, 16)).save(tmp_path / "crack" / "a.png")
    job = job_of(model=str(tiny / "vae.safetensors"), data=str(tmp_path), val="")
    assert job.evaluate(tmp_path, 7) == {"step": 7}
    with pytest.raises(ValueError, match="unknown autoencoder 'VAE-X'; new ones are VAE-SD, VAE-T"):
        job_of(model="new:VAE-X")


def test_other_colours_keep_black_black_and_every_value_in_range():
    x = torch.stack([torch.full((3, 4, 4), -1.0), torch.tensor([1.0, 0.0, -1.0])[:, None, None].expand(3, 4, 4)])
    seen = [recoloured(x, torch.Generator().manual_seed(seed)) for seed in range(20)]
    assert all((colours[0] == -1).all() and colours.abs().max() <= 1 for colours in seen)
    brightest = torch.stack([colours[1, :, 0, 0].max() for colours in seen])
    assert 0.1 < brightest.min() < 0.4 and brightest.max() > 0.8  # 2 times 0.6 to 1, less 1
    assert len({tuple(colours[1, :, 0, 0].argsort().tolist()) for colours in seen}) > 3

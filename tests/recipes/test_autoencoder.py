"""The terms of the autoencoder's loss, its scaling factor, and the recipe on a tiny model."""

from dataclasses import replace

import pytest
import torch
from PIL import Image
from torch.distributions import Normal, kl_divergence

import weights
from recipes.autoencoder import COLOUR, autoencoder, gaussian_kl, reconstruction_error, set_scale
from train import Config
from unet import VAE, VAEConfig


def config(**fields):
    return Config(
        **{
            "recipe": "autoencoder",
            "data": "generated:hazelnut/few/1",
            "val": "generated:hazelnut/val/1",
            "adapter": ["full"],
            "size": 16,
        }
        | fields
    )


def test_the_divergence_is_that_of_two_normal_distributions():
    generator = torch.Generator().manual_seed(0)
    mean, logvar = torch.randn(2, 3, 4, 4, generator=generator), torch.randn(2, 3, 4, 4, generator=generator)
    expected = kl_divergence(Normal(mean, (logvar / 2).exp()), Normal(0.0, 1.0)).mean()
    assert gaussian_kl(mean, logvar).item() == pytest.approx(expected.item(), rel=1e-5)
    assert gaussian_kl(torch.zeros(5), torch.zeros(5)) == 0


def test_the_error_counts_lines_for_their_sides_and_colour_more_than_grey():
    """A constant error has no edges; a column of 1 in an image of zeros has two sides at each distance."""
    flat = torch.full((1, 3, 8, 8), 0.3)
    assert reconstruction_error(flat).item() == pytest.approx(0.09)  # grey, no edges
    line = torch.zeros(1, 3, 8, 8)
    line[..., 4] = 1
    assert reconstruction_error(line).item() == pytest.approx(1 / 8 + 2 / 7 + 2 / 6)
    assert reconstruction_error(line).item() == pytest.approx(reconstruction_error(line.mT).item())
    red = flat * torch.tensor([1.0, 0, 0])[:, None, None]
    grey_part, colour_part = 0.09 / 3, 0.01 * (4 + 1 + 1) / 3  # red = grey 0.1 + (0.2, -0.1, -0.1)
    assert reconstruction_error(red).item() == pytest.approx(grey_part + COLOUR * colour_part)


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


def test_the_recipe_learns_looks_and_leaves_a_model_with_its_scale(tmp_path):
    job = autoencoder(config(model="new:VAE-T"), torch.device("cpu"))
    generator = torch.Generator().manual_seed(0)
    loss, numbers = job.loss(job.batch(torch.arange(2), generator), generator, 0.0)
    loss.backward()
    assert loss.item() > 0 and numbers.keys() == {"mse", "kl"}
    assert all(p.grad is not None and p.grad.isfinite().all() for p in job.model.parameters())
    assert job.look(tmp_path, 0) == job.look(tmp_path, 0) and (tmp_path / "samples" / "step_000000.png").is_file()
    job.finish(tmp_path)
    again = weights.load(tmp_path / "model.safetensors")
    assert again.config.scaling_factor == job.model.config.scaling_factor != 1


def test_of_a_checkpoint_only_the_decoder_trains(tiny, tmp_path):
    """Diffusion models live in the latents that its encoder makes, and in their scale."""
    before = weights.load(tiny / "vae.safetensors")
    job = autoencoder(config(model=str(tiny / "vae.safetensors")), torch.device("cpu"))
    named = dict(job.model.named_parameters())
    assert {name.split(".")[0] for name in named if named[name].requires_grad} == {"decoder", "post_quant_conv"}
    job.finish(tmp_path)
    assert weights.load(tmp_path / "model.safetensors").config.scaling_factor == before.config.scaling_factor


def test_nothing_held_out_and_an_unknown_size(tiny, tmp_path):
    (tmp_path / "crack").mkdir()
    Image.new("RGB", (16, 16)).save(tmp_path / "crack" / "a.png")
    job = autoencoder(config(model=str(tiny / "vae.safetensors"), data=str(tmp_path), val=""), torch.device("cpu"))
    assert job.look(tmp_path, 7) == {"step": 7}
    with pytest.raises(ValueError, match="unknown autoencoder 'VAE-X'; new ones are VAE-SD, VAE-T"):
        autoencoder(config(model="new:VAE-X"), torch.device("cpu"))

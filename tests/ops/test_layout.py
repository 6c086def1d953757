"""Channels last where convolutions run in bfloat16, nowhere else; the image is the same within its rounding."""

import pytest
import torch

import unet.vae
from ops import channels_last
from unet import VAE, UNet, UNetConfig, VAEConfig


def is_last(x):
    return x.is_contiguous(memory_format=torch.channels_last)


def test_bfloat16_alone_changes_its_order():
    x = torch.randn(2, 3, 8, 8)
    assert not is_last(channels_last(x)) and channels_last(x) is x
    assert is_last(channels_last(x.bfloat16()))
    with torch.autocast("cpu", torch.bfloat16):
        assert is_last(channels_last(x)) and torch.equal(channels_last(x), x)


def test_a_decoded_image_is_the_same_within_bfloat16(monkeypatch):
    torch.manual_seed(0)
    vae, z = VAE(VAEConfig(channels=(32, 64), layers=1, groups=8)).eval(), torch.randn(1, 4, 16, 16)
    images = {}
    with torch.no_grad():
        exact = vae.decode(z)
        for name, order in (("last", channels_last), ("first", lambda x: x)):
            monkeypatch.setattr(unet.vae, "channels_last", order)
            with torch.autocast("cpu", torch.bfloat16):
                images[name] = vae.decode(z).float()
    assert is_last(images["last"])
    error = {name: (image - exact).square().mean().sqrt() for name, image in images.items()}
    assert error["last"] < 1.2 * error["first"]


@pytest.mark.parametrize("part", ["norm1", "norm", "norm_out"])
def test_a_norm_after_frozen_layers_has_the_gradients_of_the_other_order(part):
    """On a CPU torch 2.13 crashes there if the norm's input, channels last, asks for no gradient."""
    torch.manual_seed(0)
    model = UNet(UNetConfig(channels=(8, 16), text=(True, False), heads=(2, 2), layers=1, text_width=8, groups=2))
    model.requires_grad_(False)
    for name, parameter in model.named_parameters():
        parameter.data.add_(0.1 * torch.randn(parameter.shape))
        parameter.requires_grad_(name.split(".")[-2] == part)
    weights = [parameter for parameter in model.parameters() if parameter.requires_grad]
    x, t, cond = torch.randn(2, 4, 4, 4), torch.tensor([7, 700]), torch.randn(2, 3, 8)
    grads = {}
    for order in (torch.channels_last, torch.contiguous_format):
        model.zero_grad()
        model(x.to(memory_format=order), t, cond).square().sum().backward()
        grads[order] = [weight.grad for weight in weights]
    for a, b in zip(*grads.values(), strict=True):
        torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-4)

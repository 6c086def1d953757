"""Channels last where convolutions run in bfloat16, nowhere else; the image is the same within its rounding."""

import torch

import unet.vae
from ops import channels_last
from unet import VAE, VAEConfig


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

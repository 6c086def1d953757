"""A convolution of doubled pixels is four small ones, as exact as the plain one; where it cannot be, it stays plain."""

import pytest
import torch
import torch.nn.functional as F
from torch import nn

import adapters
from ops.doubled import DoubledConv2d, doubled, summable
from ops.packed import PackedConv2d, pack
from unet import VAE, UNet, UNetConfig, VAEConfig


def plain(conv, x):
    return conv(F.interpolate(x, scale_factor=2.0, mode="nearest"))


def new(bias=True, **fields):
    torch.manual_seed(0)
    return nn.Conv2d(8, 12, 3, padding=1, bias=bias, **fields).requires_grad_(False)


@pytest.mark.parametrize("shape", [(1, 8, 1, 1), (2, 8, 5, 7), (3, 8, 16, 16)])
@pytest.mark.parametrize("bias", [True, False])
def test_four_small_convolutions_are_as_exact_as_the_one(shape, bias):
    conv, x = new(bias), torch.randn(shape)
    exact = plain(conv, x)
    with torch.no_grad(), torch.autocast("cpu", torch.bfloat16):
        four, one = doubled(conv, x), plain(conv, x)
    assert four.shape == one.shape and four.dtype == one.dtype == torch.bfloat16
    assert not torch.equal(four, one)  # or it was the plain one
    assert (four - exact).norm() < 1.3 * (one - exact).norm() + 1e-3 * exact.norm()


def test_with_a_gradient_in_float32_or_adapted_it_stays_plain():
    conv, x = new(), torch.randn(2, 8, 6, 6)
    with torch.no_grad():
        assert torch.equal(doubled(conv, x), plain(conv, x))
    with torch.autocast("cpu", torch.bfloat16):
        assert torch.equal(doubled(conv, x), plain(conv, x))
    model = nn.Sequential(new())
    adapters.attach(model, "lora:targets=0,rank=2")
    with torch.no_grad(), torch.autocast("cpu", torch.bfloat16):
        assert torch.equal(doubled(model[0], x), plain(model[0], x))


@pytest.mark.parametrize("fields", [{"stride": 2}, {"dilation": 2}, {"groups": 4}, {"padding_mode": "reflect"}])
def test_other_convolutions_stay_plain(fields):
    conv, x = new(**fields), torch.randn(1, 8, 6, 6)
    assert not summable(conv)
    with torch.no_grad(), torch.autocast("cpu", torch.bfloat16):
        assert torch.equal(doubled(conv, x), plain(conv, x))


def test_a_packed_unet_has_its_sums():
    config = UNetConfig(channels=(16, 32), text=(1, 0), heads=(2, 2), layers=1, text_width=8, groups=4, input_size=8)
    torch.manual_seed(0)
    model = UNet(config).requires_grad_(False)
    for parameter in model.parameters():
        nn.init.normal_(parameter, std=0.1)
    x, t, cond = torch.randn(2, *model.latent_shape), torch.tensor([3, 500]), torch.randn(2, 5, 8)
    exact = model(x, t, cond)
    with torch.no_grad(), torch.autocast("cpu", torch.bfloat16):
        once = model(x, t, cond)
        kinds = [type(m.upsample) for m in pack(model.to(torch.bfloat16)).modules() if getattr(m, "upsample", None)]
        packed = model(x, t, cond)
    assert kinds == [DoubledConv2d]
    for out in (once, packed):
        assert (out - exact).norm() < 0.03 * exact.norm()


def test_in_float32_a_packed_convolution_of_doubled_pixels_is_an_ordinary_one():
    class Up(nn.Module):
        def __init__(self):
            super().__init__()
            self.upsample = new()

    assert isinstance(pack(Up()).upsample, PackedConv2d)


def test_the_decoder_of_an_autoencoder_in_bfloat16():
    torch.manual_seed(0)
    vae = VAE(VAEConfig(channels=(8, 8, 8), groups=4, layers=1)).requires_grad_(False)
    z = torch.randn(2, 4, 4, 4)
    exact = vae.decode(z)
    with torch.no_grad(), torch.autocast("cpu", torch.bfloat16):
        assert (vae.decode(z) - exact).norm() < 0.03 * exact.norm()

"""Packed layers compute what the plain ones do; what cannot be packed stays."""

import weakref
from copy import deepcopy

import pytest
import torch
from torch import nn

import adapters
from dit.block import Mlp
from ops import packed
from ops.packed import PackedConv2d, PackedLinear, available, pack

pytestmark = pytest.mark.skipif(not available(), reason="this torch has no oneDNN with the two calls")

LAYERS = {
    "linear": (lambda: nn.Linear(24, 40), (3, 5, 24)),
    "no bias": (lambda: nn.Linear(24, 40, bias=False), (7, 24)),
    "convolution": (lambda: nn.Conv2d(8, 12, 3, padding=1), (2, 8, 9, 7)),
    "patches": (lambda: nn.Conv2d(4, 24, 2, stride=2), (3, 4, 8, 8)),
    "groups": (lambda: nn.Conv2d(8, 16, 3, stride=2, dilation=2, groups=2, bias=False), (1, 8, 9, 9)),
}


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("name", LAYERS)
def test_the_numbers_are_those_of_the_plain_layer(name, dtype):
    make, shape = LAYERS[name]
    torch.manual_seed(0)
    layer, x = make().requires_grad_(False).to(dtype), torch.randn(shape)
    packed = pack(nn.Sequential(layer))
    assert isinstance(packed[0], PackedLinear | PackedConv2d)
    for given in (x, torch.cat([x, x]), x[:1]):  # any number of rows or images
        expected = layer(given.to(dtype))
        out = packed(given)  # float32, as from a norm under autocast
        assert out.dtype == dtype and out.shape == expected.shape
        within = 2e-2 if dtype == torch.bfloat16 else 1e-5  # the last bit of either
        torch.testing.assert_close(out, expected, rtol=within, atol=within)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_the_gelu_of_a_dit_is_joined_with_the_linear_before_it(dtype):
    torch.manual_seed(0)
    plain = Mlp(24, 96).requires_grad_(False).to(dtype)
    model, x = pack(deepcopy(plain)), torch.randn(5, 24, dtype=dtype)
    assert isinstance(model.act, nn.Identity)
    within = 2e-2 if dtype == torch.bfloat16 else 1e-5  # the last bit of either
    torch.testing.assert_close(model(x), plain(x), rtol=within, atol=within)


def test_the_gelu_stays_where_the_linear_before_it_does():
    model = Mlp(24, 96).requires_grad_(False)
    adapters.attach(model, "lora:targets=fc1")
    plain, x = deepcopy(model), torch.randn(5, 24)
    assert torch.equal(pack(model).fc1(x), plain.fc1(x)) and isinstance(model.act, nn.GELU)
    torch.testing.assert_close(model(x), plain(x), rtol=1e-5, atol=1e-5)


def test_another_gelu_is_not_that_one():
    model = Mlp(24, 96).requires_grad_(False)
    model.act = nn.GELU()
    plain, x = deepcopy(model), 3 * torch.randn(5, 24)
    torch.testing.assert_close(pack(model)(x), plain(x), rtol=1e-6, atol=1e-6)


def test_an_image_is_the_same_whichever_batch_came_first():
    torch.manual_seed(0)
    layer = nn.Conv2d(64, 64, 3, padding=1).requires_grad_(False).to(torch.bfloat16)
    alone, many = (pack(nn.Sequential(layer)) for _ in range(2))
    x = torch.randn(5, 64, 16, 16)
    alone(x[4:])
    assert torch.equal(alone(x), many(x))


def test_what_trains_what_is_adapted_and_other_layers_stay():
    model = nn.Sequential(
        nn.Linear(8, 8), nn.Linear(8, 8), nn.Linear(8, 8), nn.Conv2d(8, 8, 3, padding=1, padding_mode="reflect")
    )
    adapters.attach(model, "lora:targets=1")
    model[2].weight.requires_grad_(True)
    kinds = [type(layer) for layer in model]
    pack(model)
    assert isinstance(model[0], PackedLinear) and [type(layer) for layer in model[1:]] == kinds[1:]


def test_of_a_packed_layer_the_plain_one_is_gone_when_the_next_is_packed(monkeypatch):
    """Or the peak is twice the model: 9 GiB of SDXL's UNet in bfloat16, which has 5."""
    model = nn.Sequential(nn.Linear(8, 8), nn.Sequential(nn.Linear(8, 8), nn.Linear(8, 8))).requires_grad_(False)
    weights, plain = [weakref.ref(weight) for name, weight in model.named_parameters() if "weight" in name], []
    reorder = packed.PackedLinear.__init__

    def counted(self, layer):
        plain.append(sum(weight() is not None for weight in weights))
        reorder(self, layer)

    monkeypatch.setattr(packed.PackedLinear, "__init__", counted)
    pack(model)
    assert plain == [3, 2, 1]

"""What is computed twice has the gradients of what is computed once, to the bit, and keeps less in between."""

import pytest
import torch
import torch.nn.functional as F
from torch import nn
from torch.autograd.graph import saved_tensors_hooks

from dit.block import Block, modulate
from ops.attention import auto, grouped, reference
from ops.recompute import by_shape, normed, recomputed
from unet import UNet, UNetConfig
from unet.block import GEGLU, TimeResBlock


def kept(call):
    """(the result, bytes that its graph keeps, each tensor once)."""
    seen = {}

    def pack(tensor):
        seen[tensor.untyped_storage().data_ptr()] = tensor.untyped_storage().nbytes()
        return tensor

    with saved_tensors_hooks(pack, lambda tensor: tensor):
        out = call()
    return out, sum(seen.values())


def grads(out, inputs):
    return torch.autograd.grad(out.float().square().sum(), inputs)


@pytest.mark.parametrize("autocast", [False, True])
def test_a_norm_and_what_follows(autocast):
    torch.manual_seed(0)
    x, shift, scale = (torch.randn(shape, requires_grad=True) for shape in ((2, 5, 8), (2, 8), (2, 8)))
    norm, layer = nn.LayerNorm(8), nn.Linear(8, 8).requires_grad_(False)
    inputs = [x, shift, scale, *norm.parameters()]
    with torch.autocast("cpu", torch.bfloat16, enabled=autocast):
        once, much = kept(lambda: layer(modulate(norm(x), shift, scale)))
        twice, little = kept(lambda: layer(normed(norm, modulate, x, shift, scale)))
    assert torch.equal(once, twice) and little < much
    for a, b in zip(grads(once, inputs), grads(twice, inputs), strict=True):
        assert torch.equal(a, b)


def test_without_a_gradient_nothing_is_wrapped():
    x = torch.randn(3)
    assert recomputed(torch.exp, x).grad_fn is None
    with torch.no_grad():
        assert recomputed(torch.exp, x.requires_grad_()).grad_fn is None


def test_an_input_that_needs_no_gradient_gets_none():
    x, y = torch.randn(3, requires_grad=True), torch.randn(3)
    (recomputed(torch.mul, x, y)).sum().backward()
    assert torch.equal(x.grad, y) and y.grad is None


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_grouped_attention_keeps_no_scores(dtype):
    torch.manual_seed(0)
    qkv = [torch.randn(2, 3, 64, 8, dtype=dtype, requires_grad=True) for _ in range(3)]
    once, much = kept(lambda: reference(*qkv))
    twice, little = kept(lambda: grouped(*qkv, scores=2 * 64 * 64))
    assert torch.equal(once, twice) and little < much / 3
    for a, b in zip(grads(once, qkv), grads(twice, qkv), strict=True):
        torch.testing.assert_close(a, b)


@pytest.mark.parametrize(("keys", "backend"), [(16, reference), (17, grouped)])
def test_scores_are_kept_where_they_are_no_more_than_q_and_k(keys, backend):
    q, k, v = (torch.randn(2, 3, n, 8, dtype=torch.bfloat16, requires_grad=True) for n in (24, keys, keys))
    assert kept(lambda: auto(q, k, v))[1] == kept(lambda: backend(q, k, v))[1]
    assert kept(lambda: reference(q, k, v))[1] != kept(lambda: grouped(q, k, v))[1]


def test_a_frozen_convolution_keeps_the_shape_alone():
    torch.manual_seed(0)
    layer, x = nn.Conv2d(4, 4, 3, padding=1), torch.randn(2, 4, 32, 32, requires_grad=True)
    layer.weight.requires_grad_(False)
    inputs = [x, layer.bias]
    once, much = kept(lambda: layer(F.silu(x)))
    twice, little = kept(lambda: by_shape(layer, recomputed(F.silu, x)))
    assert torch.equal(once, twice)
    for a, b in zip(grads(once, inputs), grads(twice, inputs), strict=True):
        assert torch.equal(a, b)
    trained = nn.Conv2d(4, 4, 3)
    (by_shape(trained, F.silu(x)).sum()).backward()
    assert trained.weight.grad is not None


def test_blocks_keep_little():
    """Bytes that the graph of a frozen block with trained biases keeps: no norm, no modulation, no gate's half."""
    torch.manual_seed(0)
    x, c = torch.randn(2, 64, 32, requires_grad=True), torch.randn(2, 32)
    block = Block(32, 4).requires_grad_(False)
    for name, parameter in block.named_parameters():
        parameter.requires_grad_(name.endswith("bias"))
    with torch.autocast("cpu", torch.bfloat16):
        out, held = kept(lambda: block.to(torch.bfloat16)(x, c))
    token = 2 * 64 * 32 * 2  # bytes of the tokens in bfloat16
    # x and the tokens after attention in float32, q, k, v, both branches, 4 of the MLP; weights, gates and the rest
    weights = sum(p.nbytes for p in block.parameters())
    assert held < (2 + 2 + 3 + 1 + 1 + 4 + 1) * token + weights + 8 * token
    h = torch.randn(2, 64, 32, requires_grad=True)
    geglu = GEGLU(32, 128).requires_grad_(False)
    _, held = kept(lambda: geglu(h))
    assert held <= 2 * 64 * 256 * 4 + geglu.proj.weight.nbytes
    res = TimeResBlock(32, 32, 16, 8).requires_grad_(False)
    image = torch.randn(2, 32, 16, 16, requires_grad=True)
    _, held = kept(lambda: res(image, torch.randn(2, 16)))
    assert held <= 2 * image.nbytes + sum(p.nbytes for p in res.parameters()) + image.nbytes // 8


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

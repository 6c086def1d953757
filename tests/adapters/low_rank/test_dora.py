"""DoRA against its equation written with the whole matrix, against PEFT and the reader of other tools' files."""

import pytest
import torch
from torch import nn

import adapters
from tests.adapters.low_rank.test_lora import LAYERS
from weights.adapter_files.lora_change import change, difference


@pytest.fixture(autouse=True)
def seed():
    torch.manual_seed(0)


def adapted(layer: nn.Module, rank=4, alpha=6.0) -> nn.Sequential:
    model = adapters.attach(nn.Sequential(layer), f"dora:rank={rank},alpha={alpha},targets=0")
    nn.init.normal_(layer.dora_up)
    nn.init.uniform_(layer.dora_gain, 0.5, 2.0)
    return model


def whole(layer: nn.Module) -> torch.Tensor:
    """g |W| V / |V| of the layer's shape, in double."""
    w, up, down, g = (layer.get_parameter(name).detach().double() for name in ("weight", *PARAMETERS))
    v = w + 6.0 / 4 * torch.einsum("or,r...->o...", up.flatten(1), down)
    norm, of_v = (rows.flatten(1).square().sum(1).sqrt() for rows in (w, v))
    return torch.einsum("o,o...->o...", g * norm / of_v, v)


PARAMETERS = ("dora_up", "dora_down", "dora_gain")


@pytest.mark.parametrize("kind", LAYERS)
def test_forward_and_merge_are_the_equation(kind):
    make, shape = LAYERS[kind]
    layer, x = make(), torch.randn(shape)
    model = adapted(layer)
    out, plain, expected = model(x), make(), whole(layer).float()
    plain.load_state_dict({"weight": expected} | ({} if layer.bias is None else {"bias": layer.bias}))
    torch.testing.assert_close(out, plain(x), atol=1e-5, rtol=1e-5)
    assert type(adapters.merge(model)[0]) is type(plain)
    torch.testing.assert_close(layer.weight.detach(), expected, atol=1e-6, rtol=1e-5)


def test_the_gain_is_the_ratio_of_the_norms_after_and_before():
    layer = nn.Linear(12, 10)
    before, model = layer.weight.detach().norm(dim=1), adapted(layer)
    gain = layer.dora_gain.detach()
    torch.testing.assert_close(adapters.merge(model)[0].weight.detach().norm(dim=1), gain * before)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("kind", LAYERS)
def test_the_start_is_exact_in_every_dtype(kind, dtype):
    make, shape = LAYERS[kind]
    layer, x = make().to(dtype), torch.randn(shape, dtype=dtype)
    expected = layer(x)
    model = adapters.attach(nn.Sequential(layer), "dora:targets=0")
    out = model(x)
    assert out.dtype == dtype and torch.equal(out, expected)
    assert {p.dtype for p in adapters.trainable_parameters(model).values()} == {dtype}


def test_weights_of_zero_keep_their_norm():
    layer, x = nn.Linear(12, 3), torch.randn(5, 12)
    nn.init.zeros_(layer.weight[1])
    expected = layer(x)
    model = adapters.attach(nn.Sequential(layer), "dora:targets=0")
    assert torch.equal(model(x), expected)
    nn.init.normal_(layer.dora_up)
    out = model(x)
    torch.testing.assert_close(out[:, 1], layer.bias[1].expand(5))
    assert out.isfinite().all() and not torch.allclose(out, expected, atol=0.1)
    torch.testing.assert_close(adapters.merge(model)(x), out, atol=1e-6, rtol=1e-5)


@pytest.mark.parametrize("order", [["lora", "dora", "oft"], ["oft", "dora", "lora"]])
def test_it_goes_under_the_other_methods_of_a_layer(order):
    """W + B A of the LoRA has another norm than W; with the norm of W the merge is right in both orders."""
    layer, x = nn.Linear(12, 10), torch.randn(5, 12)
    model = adapters.attach(nn.Sequential(layer), [f"{name}:targets=0" for name in order])
    for p in adapters.trainable_parameters(model).values():
        nn.init.normal_(p, std=0.4)
    names = [cls.__name__ for cls in type(layer).mro()]
    assert names.index("DoRA") == max(names.index(name) for name in ("DoRA", "LoRA", "OFT"))
    expected = model(x)
    torch.testing.assert_close(adapters.merge(model)(x), expected, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ("rank=0", "adapter dora: needs rank >= 1 and a finite alpha > 0, found rank 0"),
        ("alpha=inf", "'alpha' must be at most 100,000, found 'inf'"),
        ("targets=.", "cannot adapt 1: a convolution in 2 groups"),
    ],
)
def test_refused(options, message):
    model = nn.Sequential(nn.Conv2d(4, 4, 3), nn.Conv2d(4, 4, 3, groups=2))
    with pytest.raises(ValueError, match=message):
        adapters.attach(model, f"dora:{options}" if "targets" in options else f"dora:targets=0,{options}")
    assert type(model[0]) is nn.Conv2d


@pytest.mark.parametrize("kind", LAYERS)
def test_the_reader_of_other_tools_files_computes_the_same(kind):
    layer = LAYERS[kind][0]()
    model, w = adapted(layer), layer.weight.detach().clone()
    m = layer.dora_gain.detach() * w.flatten(1).norm(dim=1)
    parts = {"lora_down": layer.dora_down, "lora_up": layer.dora_up, "alpha": torch.tensor(6.0), "magnitude": m}
    theirs = difference(change({role: tensor.detach() for role, tensor in parts.items()}, layer, None), w)
    torch.testing.assert_close(adapters.merge(model)[0].weight.detach() - w, theirs, atol=1e-6, rtol=1e-5)


@pytest.mark.parametrize("kind", ["linear", "conv", "conv1x1"])  # PEFT's path ignores dilation and padding mode
def test_equals_peft(kind):
    """PEFT trains m = g |W|, so its gradient times |W| is that of g."""
    peft = pytest.importorskip("peft")
    make, shape = LAYERS[kind]
    layer, x = make(), torch.randn(shape)
    theirs = nn.Sequential(make())
    theirs.load_state_dict(nn.Sequential(layer).state_dict())
    norm, ours = layer.weight.detach().flatten(1).norm(dim=1), adapted(layer)

    config = peft.LoraConfig(r=4, lora_alpha=6, target_modules=["0"], use_dora=True)
    theirs = peft.get_peft_model(theirs, config)
    wrapped = theirs.base_model.model[0]
    a, b, m = wrapped.lora_A.default.weight, wrapped.lora_B.default.weight, wrapped.lora_magnitude_vector.default.weight
    torch.testing.assert_close(m.detach().flatten(), norm)  # where PEFT starts, and we at g = 1
    a.data.copy_(layer.dora_down), b.data.copy_(layer.dora_up)
    m.data.copy_((layer.dora_gain.detach() * norm).view_as(m))
    out, expected = ours(x), theirs(x)
    torch.testing.assert_close(out, expected, atol=1e-5, rtol=1e-5)

    for y in (out, expected):
        y.square().sum().backward()
    gradients = a.grad, b.grad, m.grad.flatten() * norm
    for mine, other in zip((layer.dora_down, layer.dora_up, layer.dora_gain), gradients):
        torch.testing.assert_close(mine.grad, other, atol=1e-3, rtol=1e-4)
    merged = theirs.merge_and_unload()
    torch.testing.assert_close(adapters.merge(ours)[0].weight, merged[0].weight, atol=1e-6, rtol=1e-5)

"""LoKr against its equation written with the whole matrix, against PEFT and the reader of LyCORIS' files."""

import pytest
import torch
from torch import nn

import adapters
from adapters.methods.low_rank.lokr import divisor
from tests.adapters.low_rank.test_lora import LAYERS
from weights.adapter_files.lora_change import change, difference

SPECS = ["factor=2", "factor=2,rank=1,alpha=3"]


@pytest.fixture(autouse=True)
def seed():
    torch.manual_seed(0)


def adapted(layer: nn.Module, options: str) -> nn.Sequential:
    model = adapters.attach(nn.Sequential(layer), f"lokr:{options},targets=0")
    for parameter in adapters.trainable_parameters(model).values():
        nn.init.normal_(parameter)
    return model


def whole(layer: nn.Module) -> torch.Tensor:
    """s (w1 (x) w2) of the layer's shape, block by block, in double."""
    parts = {name: p.detach().double() for name, p in layer.named_parameters() if "lokr" in name}
    w1, w2 = parts["lokr_w1"], parts.get("lokr_w2")
    if w2 is None:
        w2 = 3 * torch.einsum("or,r...->o...", parts["lokr_w2_a"], parts["lokr_w2_b"])  # alpha 3, rank 1
    rows = [torch.cat([w1[o, i] * w2 for i in range(w1.shape[1])], dim=1) for o in range(len(w1))]
    return torch.cat(rows).float()


@pytest.mark.parametrize("options", SPECS)
@pytest.mark.parametrize("kind", LAYERS)
def test_forward_and_merge_are_the_equation(kind, options):
    make, shape = LAYERS[kind]
    layer, x = make(), torch.randn(shape)
    before, model = layer.weight.detach().clone(), adapted(layer, options)
    assert (layer.lokr_w2 is None) == ("rank" in options)
    out, expected = model(x), before + whole(layer)
    plain = make()
    plain.load_state_dict({"weight": expected} | ({} if layer.bias is None else {"bias": layer.bias}))
    torch.testing.assert_close(out, plain(x), atol=1e-4, rtol=1e-4)
    assert type(adapters.merge(model)[0]) is type(plain) and not [n for n in vars(layer) if "lokr" in n]
    torch.testing.assert_close(layer.weight.detach(), expected, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("options", SPECS)
@pytest.mark.parametrize("kind", LAYERS)
def test_the_reader_of_lycoris_files_computes_the_same(kind, options):
    layer = LAYERS[kind][0]()
    adapted(layer, options)
    parts = {name: p.detach() for name, p in layer.named_parameters() if "lokr" in name}
    if "lokr_w2_b" in parts:
        parts |= {"lokr_w2_b": parts["lokr_w2_b"].flatten(1), "alpha": torch.tensor(3.0)}
    theirs = difference(change(parts, layer, None), layer.weight)
    torch.testing.assert_close(theirs, whole(layer), atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("kind", LAYERS)
def test_the_start_is_exact_in_every_dtype(kind, dtype):
    make, shape = LAYERS[kind]
    layer, x = make().to(dtype), torch.randn(shape, dtype=dtype)
    expected = layer(x)
    for options in SPECS:
        model = adapters.attach(nn.Sequential(make().to(dtype)), f"lokr:{options},targets=0")
        model[0].load_state_dict(layer.state_dict(), strict=False)
        out = model(x)
        assert out.dtype == dtype and torch.equal(out, expected)
        assert {p.dtype for p in adapters.trainable_parameters(model).values()} == {dtype}


def test_the_first_factor_is_the_smaller_one():
    assert [divisor(n, 8) for n in (1152, 3456, 250, 127, 8)] == [8, 8, 5, 1, 1]
    assert [divisor(12, factor) for factor in (100, 6, 5)] == [3, 2, 3]
    model = adapters.attach(nn.Sequential(nn.Linear(1152, 3456)), "lokr:targets=0")
    assert adapters.counts(model)[0] == 8 * 8 + 144 * 432
    assert "w1=8x8, w2=432x144" in repr(model)


def test_a_rank_that_saves_nothing_leaves_the_second_factor_whole():
    """As in LyCORIS, whose reader expects it; then nothing is scaled, whatever alpha says."""
    model = adapters.attach(nn.Sequential(nn.Linear(16, 16)), "lokr:factor=4,rank=2,alpha=9,targets=0")
    assert model[0].lokr_w2.shape == (4, 4) and model[0].lokr_w2_a is None and model[0].lokr_scale == 1


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ("factor=0", "needs factor >= 1, found factor 0"),
        ("rank=0", "needs rank >= 1"),
        ("rank=2,alpha=-1", "a finite alpha > 0"),
        ("alpha=2", "alpha 2 scales a w2 of a rank, and a whole one is not scaled: give rank too"),
        ("targets=.", "cannot adapt 1: a convolution in 2 groups"),
    ],
)
def test_refused(options, message):
    model = nn.Sequential(nn.Conv2d(4, 4, 3), nn.Conv2d(4, 4, 3, groups=2))
    with pytest.raises(ValueError, match=f"adapter lokr: .*{message}"):
        adapters.attach(model, f"lokr:{options}" if "targets" in options else f"lokr:targets=0,{options}")
    assert type(model[0]) is nn.Conv2d


@pytest.mark.parametrize("rank", [2, 100])
def test_equals_peft_with_its_gradient(rank):
    """The same shapes by the same factor, the same output, gradients and merged weights."""
    peft = pytest.importorskip("peft")
    layer, x = nn.Linear(48, 64), torch.randn(5, 48)
    twin = nn.Sequential(nn.Linear(48, 64))
    twin.load_state_dict(nn.Sequential(layer).state_dict())
    ours = adapted(layer, f"factor=4,rank={rank},alpha={3 if rank == 2 else rank}")
    config = peft.LoKrConfig(r=rank, alpha=3 if rank == 2 else rank, target_modules=["0"], decompose_factor=4)
    theirs = peft.get_peft_model(twin, config)
    parts = {
        name: getattr(theirs.base_model.model[0], name) for name in ("lokr_w1", "lokr_w2", "lokr_w2_a", "lokr_w2_b")
    }
    parts = {name: values["default"] for name, values in parts.items() if "default" in values}
    assert {name: p.shape for name, p in parts.items()} == {
        name: p.shape for name, p in layer.named_parameters() if "lokr" in name
    }
    for name, parameter in parts.items():
        parameter.data.copy_(layer.get_parameter(name))
    out, expected = ours(x), theirs(x)
    torch.testing.assert_close(out, expected, atol=1e-4, rtol=1e-4)
    for y in (out, expected):
        y.square().sum().backward()
    for name, parameter in parts.items():
        torch.testing.assert_close(layer.get_parameter(name).grad, parameter.grad, atol=1e-2, rtol=1e-4)
    merged = theirs.merge_and_unload()
    torch.testing.assert_close(adapters.merge(ours)[0].weight, merged[0].weight, atol=1e-5, rtol=1e-5)

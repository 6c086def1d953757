"""Modulation against its equation written with whole matrices, and against a training of V and U as published."""

import pytest
import torch
from torch import nn

import adapters
from dit import DiT

SPEC = "modulate:rank={},targets=0"


@pytest.fixture(autouse=True)
def seed():
    torch.manual_seed(0)


def adapted(bias=True, rank=3, moved=True, dtype=torch.float32) -> nn.Sequential:
    model = adapters.attach(nn.Sequential(nn.Linear(12, 10, bias=bias)).to(dtype), SPEC.format(rank))
    if moved:
        with torch.no_grad():
            for parameter in adapters.trainable_parameters(model).values():
                parameter += 0.3 * torch.randn_like(parameter)
    return model


@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("rank", [1, 2, 3, 4])
def test_forward_is_the_entrywise_product_with_v_u(rank, bias):
    layer, x = adapted(bias, rank)[0], torch.randn(2, 5, 12)
    v, u = layer.modulate_v.double(), layer.modulate_u.double()
    expected = x.double() @ (layer.weight.double() * (v @ u.T)).T
    if bias:
        expected = expected + layer.bias * layer.modulate_bias_mul + layer.modulate_bias_add
    torch.testing.assert_close(layer(x), expected.float(), atol=1e-5, rtol=1e-5)
    assert len(adapters.trainable_parameters(layer)) == (4 if bias else 2)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
@pytest.mark.parametrize("rank", [1, 2, 3, 5, 7, 64])
def test_the_start_is_exactly_the_layer_at_every_rank(rank, dtype):
    layer = adapted(rank=rank, moved=False, dtype=dtype)[0]
    assert torch.equal(layer.modulated(), layer.weight) and torch.equal(layer.modulated_bias(), layer.bias)
    assert layer.modulated().dtype == dtype
    assert layer.modulate_v.shape == (10, rank) and layer.modulate_u.shape == (12, rank)
    assert (layer.modulate_v == layer.modulate_u[0, 0]).all()
    assert layer.modulate_v[0, 0].item() == pytest.approx(rank**-0.5, rel=4e-3)


def test_v_and_u_learn_as_in_the_plain_product():
    """AdamW with weight decay, 20 steps: the way in which the product is computed leaves no trace."""
    layer, x, goal = adapted(moved=False)[0], torch.randn(6, 12), torch.randn(6, 10)
    v, u = (nn.Parameter(p.detach().clone()) for p in (layer.modulate_v, layer.modulate_u))
    optimizer = torch.optim.AdamW([v, u, layer.modulate_v, layer.modulate_u], lr=1e-2, weight_decay=0.1)
    for _ in range(20):
        optimizer.zero_grad()
        plain = x @ (layer.weight * (v @ u.T)).T + layer.bias
        ((layer(x) - goal).square().mean() + (plain - goal).square().mean()).backward()
        optimizer.step()
    assert (v - 3**-0.5).abs().max() > 0.05
    torch.testing.assert_close((layer.modulate_v, layer.modulate_u), (v, u), atol=1e-4, rtol=1e-3)


def test_a_small_change_is_seen_under_autocast():
    layer, x = adapted(moved=False)[0], torch.randn(4, 12)
    with torch.no_grad(), torch.autocast("cpu", torch.bfloat16):
        layer.weight.fill_(1.0)  # so that W o (1 + change) is all that rounds
        layer.modulate_u += 1e-3
        assert torch.allclose(layer.modulated(), torch.tensor(1 + 3**0.5 * 1e-3), atol=1e-6)
        assert layer(x).dtype == torch.bfloat16


def test_merge_writes_both_products():
    model, x = adapted(), torch.randn(3, 12)
    with torch.no_grad():
        expected, layer = model(x), model[0]
        v, u, weight, bias = layer.modulate_v, layer.modulate_u, layer.weight.clone(), layer.bias.clone()
        new = bias * layer.modulate_bias_mul + layer.modulate_bias_add
        adapters.merge(model)
        torch.testing.assert_close(model[0].weight, weight * (v @ u.T), atol=1e-6, rtol=1e-5)
        assert torch.equal(model[0].bias, new) and type(model[0]) is nn.Linear
        torch.testing.assert_close(model(x), expected, atol=1e-6, rtol=1e-5)


@pytest.mark.parametrize("rank, count", [(2, 1_516_672), (4, 2_372_032)])
def test_counts_on_dit_xl_with_five_scenarios_and_the_null_row(rank, count):
    with torch.device("meta"):
        model = DiT.from_name("DiT-XL/2", num_classes=5)
    adapters.attach(model, [f"modulate:rank={rank}", "classes"])
    assert adapters.counts(model)[0] == count
    changed = {name.rpartition(".")[0] for name in adapters.trainable_parameters(model) if "modulate" in name}
    assert len(changed) == 28 * 3 + 2 + 2 and not any("mlp.fc" in name for name in changed)


@pytest.mark.parametrize(
    "spec, message",
    [("modulate:rank=0", "needs rank >= 1, found rank 0"), ("modulate", "adapter modulate: matched no layer")],
)
def test_refused(spec, message):
    with pytest.raises(ValueError, match=message):
        adapters.attach(nn.Sequential(nn.Linear(4, 4)), spec)

"""Bottleneck adapters against their equation, on the MLP of a DiT block."""

import pytest
import torch
from torch import nn

import adapters
from adapters.methods.bottleneck import ParallelBottleneck, SequentialBottleneck
from dit import DiT, DiTConfig


def tiny_dit() -> DiT:
    torch.manual_seed(0)
    return DiT(DiTConfig(depth=2, width=8, heads=2, patch=2, input_size=4, num_classes=3))


@pytest.mark.parametrize("form", ["parallel", "sequential"])
def test_forward_is_the_equation(form):
    model, x = tiny_dit(), torch.randn(2, 3, 8)
    h = model.blocks[1].mlp(x)
    adapters.attach(model, f"bottleneck:width=5,scale=0.5,form={form}")
    mlp = model.blocks[1].mlp
    layer = mlp if form == "parallel" else mlp.fc2
    for p in adapters.trainable_parameters(model).values():
        nn.init.normal_(p)

    z = x if form == "parallel" else h
    inner = (z @ layer.bottleneck_down.T + layer.bottleneck_down_bias).clamp(min=0)
    f = 0.5 * (inner @ layer.bottleneck_up.T + layer.bottleneck_up_bias)
    torch.testing.assert_close(mlp(x), h + f)


def test_one_adapter_a_block_and_none_on_the_timestep_mlp():
    for form, kind, at in (("parallel", ParallelBottleneck, "mlp"), ("sequential", SequentialBottleneck, "mlp.fc2")):
        model = adapters.attach(tiny_dit(), f"bottleneck:form={form}")
        carriers = [name for name, layer in model.named_modules() if isinstance(layer, kind)]
        assert carriers == [f"blocks.{i}.{at}" for i in (0, 1)]


def test_down_starts_uniform_and_the_rest_at_zero():
    mlp = adapters.attach(tiny_dit(), "bottleneck:width=4000", torch.Generator().manual_seed(0)).blocks[0].mlp
    assert mlp.bottleneck_down.shape == (4000, 8) and mlp.bottleneck_up.shape == (8, 4000)
    bound = 8**-0.5
    assert bound * 0.99 < mlp.bottleneck_down.abs().max() <= bound
    assert mlp.bottleneck_down.std().item() == pytest.approx(bound / 3**0.5, rel=0.02)
    assert not any(p.any() for p in (mlp.bottleneck_up, mlp.bottleneck_up_bias, mlp.bottleneck_down_bias))
    assert mlp.bottleneck_scale == 0.1


def test_the_adapter_has_the_layers_dtype():
    model = adapters.attach(tiny_dit().bfloat16(), "bottleneck")
    assert {p.dtype for p in adapters.trainable_parameters(model).values()} == {torch.bfloat16}
    assert model.blocks[0].mlp(torch.randn(1, 2, 8, dtype=torch.bfloat16)).dtype == torch.bfloat16


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ("form=series", "form must be parallel or sequential, found 'series'"),
        ("width=0", "needs width >= 1 and a finite scale > 0, found width 0"),
        ("scale=0", "scale 0.0"),
        ("scale=nan", "'scale' must be at most 100,000, found 'nan'"),
    ],
)
def test_refused(options, message):
    with pytest.raises(ValueError, match=f"adapter bottleneck: .*{message}"):
        adapters.attach(tiny_dit(), f"bottleneck:{options}")


def test_a_model_without_an_mlp_of_a_known_name_is_refused():
    with pytest.raises(ValueError, match="adapter bottleneck: matched no layer"):
        adapters.attach(nn.Sequential(nn.Linear(2, 2)), "bottleneck")


def test_a_second_on_the_same_layers_is_refused():
    with pytest.raises(ValueError, match=r"ParallelBottleneckMlp\(\) already carries ParallelBottleneck, and takes it"):
        adapters.attach(adapters.merge(adapters.attach(tiny_dit(), "bottleneck")), "bottleneck")

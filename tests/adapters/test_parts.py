"""What each of the methods without new paths picks out of a model: norm, classes, difffit."""

import pytest
import torch
from torch import nn

import adapters
from dit import DiT, DiTConfig


def tiny_dit(depth=3) -> DiT:
    torch.manual_seed(0)
    return DiT(DiTConfig(depth=depth, width=8, heads=2, patch=2, input_size=4, num_classes=3))


def test_norm_gives_a_bare_layer_norm_weight_one_and_bias_zero():
    model = nn.Sequential(nn.Linear(4, 4), nn.LayerNorm(4, elementwise_affine=False)).bfloat16()
    x = torch.randn(5, 4, dtype=torch.bfloat16)
    before = model(x)
    adapters.attach(model, "norm")
    bare = model[1]
    assert bare.elementwise_affine and torch.equal(bare.weight, torch.ones(4).bfloat16()) and not bare.bias.any()
    assert torch.equal(model(x), before)


def test_norm_keeps_the_weights_that_a_norm_has():
    model = nn.Sequential(nn.LayerNorm(4, bias=False), nn.GroupNorm(2, 4))
    nn.init.normal_(model[0].weight)
    weight = model[0].weight
    adapters.attach(model, "norm")
    assert model[0].weight is weight
    assert list(adapters.trainable_parameters(model)) == ["0.weight", "0.bias", "1.weight", "1.bias"]


def test_norm_on_a_model_without_norms_is_refused():
    with pytest.raises(ValueError, match="adapter norm: matched no layer"):
        adapters.attach(nn.Linear(2, 2), "norm")


def test_bitfit_on_a_model_without_biases_is_refused():
    with pytest.raises(ValueError, match=r"adapter bitfit: matched no parameter: pattern 'bias\$'"):
        adapters.attach(nn.Linear(2, 2, bias=False), "bitfit")


def test_classes_trains_the_table_only():
    assert list(adapters.trainable_parameters(adapters.attach(tiny_dit(), "classes"))) == [
        "y_embedder.embedding_table.weight"
    ]


def test_difffit_scales_the_end_of_each_branch_of_the_deepest_blocks():
    model = adapters.attach(tiny_dit(), "difffit:blocks=2")
    gammas = [name for name in adapters.trainable_parameters(model) if name.endswith("gamma")]
    assert gammas == [f"blocks.{i}.{end}.gamma" for i in (1, 2) for end in ("attn.proj", "mlp.fc2")]
    others = set(adapters.trainable_parameters(model)) - set(gammas)
    assert others == set(adapters.trainable_parameters(adapters.attach(tiny_dit(), ["bitfit", "norm", "classes"])))


@pytest.mark.parametrize("blocks", [0, -1, 4])
def test_difffit_needs_as_many_blocks(blocks):
    with pytest.raises(ValueError, match=f"adapter difffit: blocks={blocks}, and the model has 3 blocks"):
        adapters.attach(tiny_dit(), f"difffit:blocks={blocks}")


def test_gamma_scales_the_output_bias_included():
    model = adapters.attach(tiny_dit(depth=1), "difffit")
    layer, x = model.blocks[0].attn.proj, torch.randn(2, 3, 8)
    nn.init.normal_(layer.bias)
    nn.init.normal_(layer.gamma)
    expected = layer.gamma * nn.functional.linear(x, layer.weight, layer.bias)
    torch.testing.assert_close(layer(x), expected)
    torch.testing.assert_close(adapters.merge(model).blocks[0].attn.proj(x), expected)

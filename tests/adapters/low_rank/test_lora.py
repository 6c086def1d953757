"""LoRA against its equation written with the whole matrix, and against PEFT."""

import copy

import pytest
import torch
from torch import nn

import adapters
from training.step.optimizer import param_groups

LAYERS = {
    "linear": (lambda: nn.Linear(12, 10), (2, 5, 12)),
    "conv": (lambda: nn.Conv2d(6, 10, 3, stride=2, padding=1), (2, 6, 8, 8)),
    "dilated": (lambda: nn.Conv2d(6, 10, 3, padding=2, dilation=2, padding_mode="circular", bias=False), (2, 6, 8, 8)),
    "conv1x1": (lambda: nn.Conv2d(6, 10, 1), (2, 6, 8, 8)),
}


@pytest.fixture(autouse=True)
def seed():
    torch.manual_seed(0)


def adapted(layer: nn.Module, rank=4, alpha=6.0) -> nn.Sequential:
    model = adapters.attach(nn.Sequential(layer), f"lora:rank={rank},alpha={alpha},targets=0")
    nn.init.normal_(model[0].lora_up)
    return model


def test_the_class_is_the_mixin_over_the_layers_own_and_print_shows_rank_and_alpha():
    layer = adapted(nn.Linear(12, 10), rank=3, alpha=6.0)[0]
    assert [c.__name__ for c in type(layer).mro()[:3]] == ["LoRALinear", "LoRA", "Linear"]
    assert str(layer) == "LoRALinear(in_features=12, out_features=10, bias=True, rank=3, alpha=6)"


@pytest.mark.parametrize("kind", LAYERS)
def test_forward_is_the_layer_with_w_plus_scaled_b_a(kind):
    make, shape = LAYERS[kind]
    layer, x = make(), torch.randn(shape)
    weight = layer.weight.detach().clone()
    model = adapted(layer)
    out = model(x)

    kernel = layer.lora_down.detach()
    delta = 6.0 / 4 * torch.einsum("or,r...->o...", layer.lora_up.detach().flatten(1), kernel)
    plain = make()
    plain.load_state_dict({"weight": weight + delta} | ({} if layer.bias is None else {"bias": layer.bias}))
    torch.testing.assert_close(out, plain(x), atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("kind", LAYERS)
def test_merge_then_subtract_gives_the_weight_back(kind):
    layer = LAYERS[kind][0]()
    weight = layer.weight.detach().clone()
    model = adapted(layer)
    up, down = layer.lora_up.detach().flatten(1), layer.lora_down.detach()
    adapters.merge(model)
    assert not torch.allclose(layer.weight, weight, atol=0.1)
    unmerged = layer.weight - 6.0 / 4 * (up @ down.flatten(1)).view_as(weight)
    torch.testing.assert_close(unmerged.detach(), weight, atol=1e-6, rtol=1e-5)


def test_down_starts_with_deviation_1_over_rank_and_up_at_zero():
    layer = adapters.attach(nn.Linear(4000, 7), "lora:rank=8,targets=", torch.Generator().manual_seed(0))
    assert layer.lora_down.shape == (8, 4000) and layer.lora_up.shape == (7, 8)
    assert layer.lora_down.std().item() == pytest.approx(1 / 8, rel=0.02)
    assert not layer.lora_up.any()
    assert layer.lora_scale == 1


def test_the_adapter_has_the_layers_dtype_and_merges_in_float32():
    layer = nn.Linear(64, 64, bias=False).bfloat16()
    layer.weight.data.fill_(1.0)
    model = adapted(layer, rank=2, alpha=2.0)
    assert layer.lora_down.dtype == layer.lora_up.dtype == torch.bfloat16
    assert model(torch.randn(3, 64, dtype=torch.bfloat16)).dtype == torch.bfloat16
    exact = 1 + layer.lora_up.detach().double() @ layer.lora_down.detach().double()
    adapters.merge(model)
    assert layer.weight.dtype == torch.bfloat16
    # one rounding to bf16's 8 bits, none on the way
    torch.testing.assert_close(layer.weight.double(), exact, rtol=1.01 * 2**-8, atol=1e-6)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ("rank=0", "needs rank >= 1 and a finite alpha > 0, found rank 0"),
        ("alpha=0", "found rank 4, alpha 0.0"),
        ("alpha=nan", "'alpha' must be at most 100,000, found 'nan'"),
        ("alpha=inf", "'alpha' must be at most 100,000, found 'inf'"),
        ("targets=qkv", "adapter lora: matched no layer: pattern 'qkv'"),
        ("targets=.", "cannot adapt 1: a convolution in 2 groups"),
    ],
)
def test_refused(options, message):
    model = nn.Sequential(nn.Conv2d(4, 4, 3), nn.Conv2d(4, 4, 3, groups=2))
    with pytest.raises(ValueError, match=message):
        adapters.attach(model, f"lora:{options}" if "targets" in options else f"lora:targets=0,{options}")
    assert type(model[0]) is nn.Conv2d


@pytest.mark.parametrize("kind", ["linear", "conv", "conv1x1"])  # PEFT's path ignores dilation and padding mode
def test_equals_peft(kind):
    peft = pytest.importorskip("peft")
    make, shape = LAYERS[kind]
    layer, x = make(), torch.randn(shape)
    theirs = nn.Sequential(make())
    theirs.load_state_dict(nn.Sequential(layer).state_dict())
    ours = adapted(layer)

    theirs = peft.get_peft_model(theirs, peft.LoraConfig(r=4, lora_alpha=6, target_modules=["0"]))
    wrapped = theirs.base_model.model[0]
    wrapped.lora_A.default.weight.data.copy_(layer.lora_down)
    wrapped.lora_B.default.weight.data.copy_(layer.lora_up)
    torch.testing.assert_close(ours(x), theirs(x), atol=1e-6, rtol=1e-6)
    assert adapters.trainable_parameters(ours).keys() == {"0.lora_down", "0.lora_up"}

    merged = theirs.merge_and_unload()
    torch.testing.assert_close(adapters.merge(ours)[0].weight, merged[0].weight, atol=1e-6, rtol=1e-6)


@pytest.mark.parametrize(("options", "scale"), [("rank=4,alpha=6", 6 / 4), ("rank=9,alpha=6,stable=1", 6 / 3)])
def test_the_scale_is_over_the_rank_or_over_its_root(options, scale):
    (layer,) = adapters.attach(nn.Sequential(nn.Linear(8, 8)), f"lora:{options},targets=0")
    assert layer.lora_scale == scale


def test_rank_stabilised_equals_peft():
    peft = pytest.importorskip("peft")
    layer, x = nn.Linear(12, 10), torch.randn(5, 12)
    twin = nn.Sequential(nn.Linear(12, 10))
    twin.load_state_dict(nn.Sequential(layer).state_dict())
    theirs = peft.get_peft_model(twin, peft.LoraConfig(r=4, lora_alpha=6, target_modules=["0"], use_rslora=True))
    ours = adapters.attach(nn.Sequential(layer), "lora:rank=4,alpha=6,stable=1,targets=0")
    nn.init.normal_(layer.lora_up)
    wrapped = theirs.base_model.model[0]
    wrapped.lora_A.default.weight.data.copy_(layer.lora_down)
    wrapped.lora_B.default.weight.data.copy_(layer.lora_up)
    torch.testing.assert_close(ours(x), theirs(x), atol=1e-5, rtol=1e-5)


def test_b_learns_at_its_own_rate_as_in_peft():
    """The groups of PEFT's LoRA+ optimizer: A at lr, B at ratio times it, and what is not of LoRA at lr."""
    peft = pytest.importorskip("peft")
    from peft.optimizers import create_loraplus_optimizer

    model = nn.Sequential(nn.Linear(12, 10), nn.LayerNorm(10))
    theirs = peft.get_peft_model(copy.deepcopy(model), peft.LoraConfig(r=4, target_modules=["0"]))
    rates = create_loraplus_optimizer(theirs, torch.optim.AdamW, lr=1e-3, loraplus_lr_ratio=16).param_groups
    expected = {tuple(p.shape): group["lr"] for group in rates for p in group["params"]}

    ours = adapters.attach(model, ["lora:rank=4,ratio=16,targets=0", "norm"])
    parameters = adapters.trainable_parameters(ours)
    groups = param_groups(parameters, {}, 1e-3, adapters.rate_factors(ours))
    found = {tuple(p.shape): group["peak"] for group in groups for p in group["params"]}
    assert {shape: found[shape] for shape in expected} == pytest.approx(expected) == {(4, 12): 1e-3, (10, 4): 16e-3}
    assert found[(10,)] == 1e-3


def test_a_part_with_a_rate_of_its_own_keeps_the_ratio():
    model = adapters.attach(nn.ModuleDict({"text": nn.Linear(3, 4), "unet": nn.Linear(3, 5)}), "lora:ratio=8,targets=.")
    groups = param_groups(adapters.trainable_parameters(model), {"text.": 1e-4}, 1e-3, adapters.rate_factors(model))
    assert sorted(group["peak"] for group in groups) == pytest.approx([1e-4, 8e-4, 1e-3, 8e-3])


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ("stable=1", "stable=1 scales by alpha / sqrt.rank.: give alpha too, which is one for all ranks"),
        ("stable=2,alpha=1", "needs stable 0 or 1 and a finite ratio > 0, found stable 2, ratio 1"),
        ("ratio=0", "found stable 0, ratio 0"),
        ("ratio=nan", "ratio"),
    ],
)
def test_options_of_scale_and_rate_that_are_refused(options, message):
    with pytest.raises(ValueError, match=f"adapter lora: .*{message}"):
        adapters.attach(nn.Sequential(nn.Linear(3, 4)), f"lora:{options},targets=0")

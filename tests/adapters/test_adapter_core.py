"""The class change and its way back, on single layers; the rest of core is under the contract."""

import copy
import pickle

import pytest
import torch
from torch import nn

import adapters
from adapters.core import adapted_class, freeze, frozen_names, match, specialize, unfreeze
from adapters.methods.bottleneck import SequentialBottleneck
from adapters.methods.difffit import Gamma
from adapters.methods.low_rank.lora import LoRA

OPTIONS = {Gamma: {}, LoRA: {"rank": 2, "scale": 1.5, "ratio": 1.0, "generator": None}}
ADDED = {Gamma: ["gamma"], LoRA: ["lora_down", "lora_up"]}


def net() -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(6, 5), nn.ReLU(), nn.Linear(5, 4, bias=False))


def randomise(model):
    for p in adapters.trainable_parameters(model).values():
        nn.init.normal_(p)


def test_specialize_keeps_the_object_and_its_keys():
    layer = nn.Linear(6, 5)
    weight, before = layer.weight, layer
    specialize(layer, Gamma)
    assert layer is before and layer.weight is weight
    assert list(layer.state_dict()) == ["weight", "bias", "gamma"]
    assert isinstance(layer, nn.Linear) and type(layer).__name__ == "GammaLinear"


def test_adapted_class_is_made_once():
    assert adapted_class(Gamma, nn.Linear) is adapted_class(Gamma, nn.Linear)


def test_a_layer_takes_a_mixin_once():
    layer = nn.Linear(6, 5)
    specialize(layer, Gamma)
    with pytest.raises(ValueError, match=r"GammaLinear\(in_features=6.* already carries Gamma"):
        specialize(layer, Gamma)
    with pytest.raises(ValueError, match="adapter lora: LoRALinear.* already carries LoRA"):
        adapters.attach(net(), ["lora:targets=0", "lora:targets=0"])


@pytest.mark.parametrize("older_first", [(LoRA, Gamma), (Gamma, LoRA)])
def test_merge_takes_the_innermost_mixin_first(older_first):
    model, x = net(), torch.randn(3, 6)
    for mixin in older_first:
        for layer in (model[0], model[2]):
            specialize(layer, mixin, **OPTIONS[mixin])
    freeze(model)
    unfreeze(model, "lora|gamma")
    randomise(model)

    w, b, down, up, gamma = (model[0].get_parameter(n) for n in ("weight", "bias", "lora_down", "lora_up", "gamma"))
    low_rank = 3 / 2 * up @ down
    merged = gamma[:, None] * (w + low_rank) if older_first[0] is LoRA else gamma[:, None] * w + low_rank
    merged, bias, expected = merged.detach(), (gamma * b).detach(), model(x)
    adapters.merge(model)
    assert type(model[0]) is type(model[2]) is nn.Linear
    assert list(model.state_dict()) == ["0.weight", "0.bias", "2.weight"]
    torch.testing.assert_close(model[0].weight, merged)
    torch.testing.assert_close(model[0].bias, bias)
    torch.testing.assert_close(model(x), expected)


@pytest.mark.parametrize("mixin", [LoRA, Gamma])
@pytest.mark.parametrize("under", [True, False])
def test_what_does_not_merge_stays_with_all_that_is_over_it(mixin, under):
    model, x = net(), torch.randn(3, 6)
    options = OPTIONS | {SequentialBottleneck: {"like": model[2].weight, "width": 3, "scale": 2.0, "generator": None}}
    for each in (mixin, SequentialBottleneck) if under else (SequentialBottleneck, mixin):
        specialize(model[2], each, **options[each])
    specialize(model[0], mixin, **options[mixin])
    freeze(model)
    unfreeze(model, "lora|gamma|bottleneck")
    randomise(model)

    expected, stacked, weight = model(x), type(model[2]), model[2].weight.clone()
    for _ in range(2):  # the second has nothing more to merge
        adapters.merge(model)
        torch.testing.assert_close(model(x), expected)
        assert type(model[0]) is nn.Linear
        assert type(model[2]) is (adapted_class(SequentialBottleneck, nn.Linear) if under else stacked)
        assert torch.equal(model[2].weight, weight) is not under
    names = {"2.bottleneck_down", "2.bottleneck_down_bias", "2.bottleneck_up", "2.bottleneck_up_bias"}
    assert adapters.adapter_parameters(model) == (names if under else names | {f"2.{name}" for name in ADDED[mixin]})
    twin = pickle.loads(pickle.dumps(model))
    assert type(twin[2]) is type(model[2]) and torch.equal(twin(x), model(x))


def test_a_merged_layer_can_be_adapted_again():
    model = adapters.merge(adapters.attach(net(), "lora:targets=0"))
    assert list(adapters.trainable_parameters(adapters.attach(model, "lora:targets=0"))) == ["0.lora_down", "0.lora_up"]


def test_match_is_a_regex_on_dotted_names_in_the_models_order():
    attention = nn.ModuleDict({"to_q": nn.Linear(2, 2), "to_k": nn.Linear(2, 2)})
    model = nn.ModuleDict({"attn": attention, "ff": nn.Linear(2, 2)})
    assert [name for name, _ in match(model, r"attn\.to_(k|q)$", nn.Linear)] == ["attn.to_q", "attn.to_k"]
    assert match(model, "ff", nn.Linear) == [("ff", model["ff"])]
    with pytest.raises(ValueError, match="matched no layer: pattern 'qkv', the model has attn.to_q, attn.to_k, ff"):
        match(model, "qkv", nn.Linear)
    with pytest.raises(ValueError, match="pattern 'ff', the model has no such layer at all"):
        match(model, "ff", nn.Conv2d)
    with pytest.raises(ValueError, match=r"pattern '\(' is not a regular expression"):
        match(model, "(", nn.Linear)


def test_a_long_list_of_names_is_cut_and_its_indices_joined():
    model = nn.Sequential(*(nn.ModuleDict({f"layer_{i}": nn.Linear(1, 1)}) for i in range(14)))
    with pytest.raises(ValueError, match=r"the model has \*\.layer_0, .*\*\.layer_11 and 2 more$"):
        match(model, "qkv", nn.Linear)
    with pytest.raises(ValueError, match=r"matched no layer: pattern 'qkv', the model has \*$"):
        match(net(), "qkv", nn.Linear)


def test_unfreeze_adds_to_what_trains():
    model = net()
    freeze(model)
    unfreeze(model, r"^0\.bias$")
    unfreeze(model, r"^2\.")
    assert list(adapters.trainable_parameters(model)) == ["0.bias", "2.weight"]
    assert adapters.counts(model) == (5 + 20, 30 + 5 + 20)
    with pytest.raises(ValueError, match="matched no parameter: pattern 'gamma'"):
        unfreeze(model, "gamma")


def test_what_was_built_frozen_is_remembered_through_attach_and_copies():
    model = net()
    model[0].bias.requires_grad_(False)
    adapters.attach(model, "bitfit")
    assert frozen_names(copy.deepcopy(model)) == {"0.bias"} and frozen_names(model[0]) == {"bias"}
    assert list(adapters.trainable_parameters(adapters.attach(model, "full"))) == ["0.weight", "2.weight"]


def test_attach_freezes_what_an_earlier_attach_trained():
    model = adapters.attach(net(), "full")
    assert list(adapters.trainable_parameters(adapters.attach(model, "bitfit"))) == ["0.bias"]


def test_full_on_a_model_frozen_by_hand_is_refused():
    with pytest.raises(ValueError, match="adapter full: nothing to train: all 3 parameters were frozen before"):
        adapters.attach(net().requires_grad_(False), "full")


def test_what_needs_the_plain_weights_goes_under_what_was_there_before():
    for specs in (
        ["lora:rank=2,targets=0", "dora:rank=2,targets=0"],
        ["dora:rank=2,targets=0", "lora:rank=2,targets=0"],
    ):
        assert type(adapters.attach(net(), specs)[0]).__name__ == "LoRADoRALinear"


def test_the_terms_of_all_layers_add_up():
    model = adapters.attach(net(), "bnn:targets=.,kl=0.5")
    randomise(model)
    terms = [layer.auxiliary_loss()[1].item() for layer in (model[0], model[2])]
    assert min(terms) > 0 and adapters.auxiliary_losses(model)["kl"].item() == pytest.approx(sum(terms))

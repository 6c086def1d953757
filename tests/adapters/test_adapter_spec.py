"""The spec `name:option=value,...` is a call: it is checked against the method's signature."""

import pytest
import torch
from torch import nn

import adapters


@pytest.mark.parametrize(
    ("spec", "call"),
    [
        ("full", ("full", {})),
        ("lora", ("lora", {})),
        ("lora:rank=8,alpha=16", ("lora", {"rank": 8, "alpha": 16.0})),
        (r"lora:targets=mlp\.fc[12]$,alpha=1e-1", ("lora", {"targets": r"mlp\.fc[12]$", "alpha": 0.1})),
        ("difffit:blocks=14", ("difffit", {"blocks": 14})),
        ("tokens:init=320+2368", ("tokens", {"init": "320+2368"})),
        ("tokens:start=320,vectors=2", ("tokens", {"init": "320", "vectors": 2})),  # as older files have it
    ],
)
def test_parse(spec, call):
    name, options = adapters.parse(spec)
    assert (name, options) == call
    assert {key: type(value) for key, value in options.items()} == {key: type(value) for key, value in call[1].items()}


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        ("lorra", "unknown adapter 'lorra', did you mean 'lora'"),
        ("", "unknown adapter ''"),
        ("lora:rnk=8", "adapter lora has no option 'rnk', did you mean 'rank'"),
        ("lora:generator=1", "adapter lora has no option 'generator'"),
        ("lora:rank=big", "adapter lora: option 'rank' must be int, found 'big'"),
        ("lora:rank=8.5", "adapter lora: option 'rank' must be int, found '8.5'"),
        ("lora:alpha=x", "adapter lora: option 'alpha' must be float, found 'x'"),
        ("lora:rank=99999999999999999999", "option 'rank' must be at most 100,000, found '9999"),
        ("lora:alpha=nan", "option 'alpha' must be at most 100,000, found 'nan'"),
        ("lora:rank=4,rank=8", "adapter lora has option 'rank' twice"),
        ("lora:8", "adapter lora takes option=value, found '8' in 'lora:8'"),
        ("lora:", "adapter lora takes option=value, found ''"),
        ("bitfit:rank=8", "adapter bitfit takes no options, found 'rank'"),
    ],
)
def test_a_bad_spec_is_refused_before_the_model_changes(spec, message):
    model = nn.Linear(2, 2)
    with pytest.raises(ValueError, match=message):
        adapters.attach(model, ["full", spec])
    assert len(adapters.trainable_parameters(model)) == 2


def test_attach_needs_a_spec():
    with pytest.raises(ValueError, match="no adapter given"):
        adapters.attach(nn.Linear(2, 2), [])


def test_the_generator_decides_the_initial_values():
    def down(seed):
        return adapters.attach(nn.Linear(64, 2), "lora:targets=", torch.Generator().manual_seed(seed)).lora_down

    first, same, other = down(5), down(5), down(6)
    assert torch.equal(first, same) and not torch.equal(first, other)

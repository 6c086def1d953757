"""AdamW inside the backward pass: the bytes of AdamW after it, no gradient left, its state in the run's."""

import copy
import math

import pytest
import torch
from torch import nn

import training.step.optimizer
from config.training import Loop
from training.state import State, load_state, save_state
from training.step.optimizer import StepInBackward, adamw, average, clip, param_groups


def new_model():
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(4, 8), nn.GELU(), nn.Linear(8, 3))


def optimizer_of(model, options):
    groups = param_groups(dict(model.named_parameters()), {"2.": 5e-4}, options.lr)
    optimizer = adamw(groups, options)
    for group in optimizer.param_groups:
        group["lr"] = group["peak"]
    return optimizer


def steps(model, optimizer, count):
    norms = []
    for i in range(count):
        x = torch.randn(5, 4, generator=torch.Generator().manual_seed(i))
        model(x).square().sum().backward()
        norms.append(clip(model, optimizer, 0.0))
        optimizer.step()
        optimizer.zero_grad()
    return norms


@pytest.fixture
def options(monkeypatch):
    monkeypatch.setattr(training.step.optimizer, "MANY", 0)
    return Loop(clip=0.0, weight_decay=0.1)


def test_its_bytes_are_those_of_adamw(options):
    plain, inside = new_model(), new_model()
    groups = param_groups(dict(plain.named_parameters()), {"2.": 5e-4}, options.lr)
    after = torch.optim.AdamW([group | {"lr": group["peak"]} for group in groups], weight_decay=0.1, fused=True)
    within = optimizer_of(inside, options)
    assert isinstance(within, StepInBackward)
    norms, same = steps(plain, after, 3), steps(inside, within, 3)
    assert same == pytest.approx(norms, rel=1e-6)
    for a, b in zip(plain.parameters(), inside.parameters(), strict=True):
        assert torch.equal(a, b) and b.grad is None
        assert all(torch.equal(after.state[a][key], within.state[b][key]) for key in ("exp_avg", "exp_avg_sq", "step"))


def test_where_gradients_are_needed_they_are_kept(options):
    for other in (Loop(clip=1.0), Loop(clip=0.0, accumulate=2)):
        assert type(optimizer_of(new_model(), other)) is torch.optim.AdamW


def test_few_weights_keep_their_gradients():
    assert type(optimizer_of(new_model(), Loop(clip=0.0))) is torch.optim.AdamW


def test_a_gradient_that_is_not_finite_updates_nothing_and_is_told(options):
    model = new_model()
    before, optimizer = copy.deepcopy(model), optimizer_of(model, options)
    (model(torch.ones(1, 4)).sum() * math.nan).backward()
    assert not math.isfinite(clip(model, optimizer, 0.0))
    assert all(torch.equal(a, b) for a, b in zip(model.parameters(), before.parameters()))


def test_a_resumed_run_is_the_run_left_alone(options, tmp_path):
    alone, first, second = (new_model() for _ in range(3))
    steps(alone, optimizer_of(alone, options), 2)
    state = State(dict(first.named_parameters()), {}, {}, optimizer_of(first, options))
    steps(first, state.optimizer, 1)
    save_state(tmp_path, state, 1)
    state = State(dict(second.named_parameters()), {}, {}, optimizer_of(second, options))
    assert load_state(tmp_path, state) == 1
    x = torch.randn(5, 4, generator=torch.Generator().manual_seed(1))
    second(x).square().sum().backward()
    assert all(torch.equal(a, b) for a, b in zip(alone.parameters(), second.parameters()))


def test_the_average_of_all_parameters():
    model = new_model()
    ema = {name: torch.zeros_like(p) for name, p in model.named_parameters()}
    average(dict(model.named_parameters()), ema, 0.75)
    assert all(torch.equal(ema[name], torch.zeros_like(p).lerp(p, 0.25)) for name, p in model.named_parameters())
    average(dict(model.named_parameters()), {}, 0.75)  # without one nothing is done

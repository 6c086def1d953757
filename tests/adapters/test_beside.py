"""A model as it was before methods were attached beside its weights, without a second copy of them."""

import pytest
import torch
from test_contract import CASES, CONDITIONS, T, X, attached, build, perturb, run

import adapters
from adapters import attach_beside
from adapters.bottleneck import Bottleneck

BESIDE = {"lora", "dora", "oft", "modulate", "bottleneck", "vpt", "tokens"}  # the others train the model's weights


def grafted(model, specs):
    return attach_beside(model, specs, torch.Generator().manual_seed(4))


@pytest.mark.parametrize(("method", "backbone"), CASES)
def test_a_method_can_be_switched_off_exactly_or_says_that_it_cannot(method, backbone):
    model, base = build(backbone), build(backbone)
    if method.split(":")[0] not in BESIDE:
        with pytest.raises(ValueError, match=r"only what stands beside the weights.* train in place, \S+ for one$"):
            grafted(model, method)
        return
    before = grafted(model, method)
    perturb(model)
    changed, kinds, keys = run(model, backbone), [type(m) for m in model.modules()], list(model.state_dict())
    assert not torch.equal(changed, run(attached(method, backbone), backbone))
    with before(), torch.no_grad():  # what the base can read: no learned word
        assert torch.equal(*(m(X, T, CONDITIONS[backbone]) for m in (model, base)))
    assert torch.equal(run(model, backbone), changed)
    assert [type(m) for m in model.modules()] == kinds and list(model.state_dict()) == keys


@pytest.mark.parametrize("backbone", ["dit", "sd"])
def test_what_was_there_before_stays_on(backbone):
    """A bottleneck does not fold: it is part of the teacher, under and over the student's mixins."""
    model = attached("bottleneck:form=sequential", backbone)
    perturb(model)
    teacher = run(model, backbone)
    before = grafted(model, ["lora:targets=(fc2|net.2|attn.*)$", "dora:targets=fc1|proj$"])
    perturb(model)
    assert not torch.equal(run(model, backbone), teacher)
    with before():
        assert torch.equal(run(model, backbone), teacher)
        assert any(isinstance(layer, Bottleneck) for layer in model.modules())


def test_the_student_is_back_after_an_exception_and_learns_with_the_teacher_between():
    model = build("dit")
    before = grafted(model, "lora")
    perturb(model)
    student = run(model, "dit")
    with pytest.raises(KeyError):
        with before():
            raise KeyError
    assert torch.equal(run(model, "dit"), student)
    with before(), pytest.raises(RuntimeError, match="does not require grad"):
        model(torch.zeros(1, 4, 4, 4), torch.tensor([1]), torch.tensor([0])).sum().backward()
    model(torch.zeros(1, 4, 4, 4), torch.tensor([1]), torch.tensor([0])).sum().backward()
    assert all(p.grad is not None for p in adapters.trained(model).values())

"""disable_adapters: the model from before `attach`, without a second copy of its weights."""

from functools import partial

import pytest
import torch

import adapters
from adapters.methods.bottleneck import Bottleneck
from tests.adapters.test_contract import CASES, CONDITIONS, T, X, attached, build, perturb, run

# the others train the model's weights
DETACHABLE = {"lora", "tlora", "dora", "lokr", "oft", "modulate", "bottleneck", "vpt", "tokens"}


def attach_detachable(model, specs):
    """Attaches and returns disable(): the context without the adapters."""
    classes = adapters.layer_classes(model)
    adapters.attach(model, specs, torch.Generator().manual_seed(4))
    adapters.check_detachable(model)
    return partial(adapters.disable_adapters, classes)


@pytest.mark.parametrize(("method", "backbone"), CASES)
def test_a_method_can_be_switched_off_exactly_or_says_that_it_cannot(method, backbone):
    model, base = build(backbone), build(backbone)
    if method.split(":")[0] not in DETACHABLE:
        with pytest.raises(ValueError, match=r"only what stands beside the weights.* train in place, \S+ for one$"):
            attach_detachable(model, method)
        return
    disable = attach_detachable(model, method)
    perturb(model)
    changed, kinds, keys = run(model, backbone), [type(m) for m in model.modules()], list(model.state_dict())
    assert not torch.equal(changed, run(attached(method, backbone), backbone))
    with disable(), torch.no_grad():  # what the base can read: no learned word
        assert torch.equal(*(m(X, T, CONDITIONS[backbone]) for m in (model, base)))
    assert torch.equal(run(model, backbone), changed)
    assert [type(m) for m in model.modules()] == kinds and list(model.state_dict()) == keys


@pytest.mark.parametrize("backbone", ["dit", "sd"])
def test_what_was_there_before_stays_on(backbone):
    """A bottleneck does not merge: it is part of the teacher, under and over the student's mixins."""
    model = attached("bottleneck:form=sequential", backbone)
    perturb(model)
    teacher = run(model, backbone)
    disable = attach_detachable(model, ["lora:targets=(fc2|net.2|attn.*)$", "dora:targets=fc1|proj$"])
    perturb(model)
    assert not torch.equal(run(model, backbone), teacher)
    with disable():
        assert torch.equal(run(model, backbone), teacher)
        assert any(isinstance(layer, Bottleneck) for layer in model.modules())


def test_the_student_is_back_after_an_exception_and_learns_with_the_teacher_between():
    model = build("dit")
    disable = attach_detachable(model, "lora")
    perturb(model)
    student = run(model, "dit")
    with pytest.raises(KeyError):
        with disable():
            raise KeyError
    assert torch.equal(run(model, "dit"), student)
    with disable(), pytest.raises(RuntimeError, match="does not require grad"):
        model(torch.zeros(1, 4, 4, 4), torch.tensor([1]), torch.tensor([0])).sum().backward()
    model(torch.zeros(1, 4, 4, 4), torch.tensor([1]), torch.tensor([0])).sum().backward()
    assert all(p.grad is not None for p in adapters.trainable_parameters(model).values())

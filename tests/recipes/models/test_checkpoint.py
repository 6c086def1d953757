"""Blocks computed twice have the gradients of blocks computed once, to the bit, and keep their input alone."""

import copy

import pytest
import torch

import adapters
import weights
from dit import DiT, DiTConfig
from recipes.models.checkpoint import checkpoint_blocks
from tests.ops.test_recompute import kept


def new_dit():
    torch.manual_seed(0)
    model = DiT(DiTConfig(depth=3, width=48, heads=4, patch=2, input_size=8, num_classes=3))
    for parameter in model.parameters():
        if parameter.requires_grad:
            torch.nn.init.normal_(parameter, std=0.05)
    return model


@pytest.mark.parametrize("spec", ["bitfit", "lora:rank=2", "bnn", "vpt:tokens=2", "full"])
def test_the_gradients_of_a_dit(spec):
    once = adapters.attach(new_dit(), spec, torch.Generator().manual_seed(0)).train()
    twice = copy.deepcopy(once)
    checkpoint_blocks(twice)
    x = torch.randn(2, 4, 8, 8)
    results = []
    for model in (once, twice):
        torch.manual_seed(1)  # what Gaussian weights draw
        out, held = kept(lambda model=model: model(x, torch.tensor([1, 900]), torch.tensor([0, 2])))
        out.square().sum().backward()
        results.append((out, held, [p.grad for p in adapters.trainable_parameters(model).values()]))
    (out, held, grads), (again, less, same) = results
    assert torch.equal(out, again) and less < held
    assert all(torch.equal(a, b) for a, b in zip(grads, same, strict=True))
    assert twice.state_dict().keys() == once.state_dict().keys()
    adapters.merge(twice)
    merges = not spec.startswith("vpt")  # what does not merge keeps what is over it
    assert ("Checkpointed" in type(twice.blocks[0]).__name__) != merges


def test_the_gradients_of_a_unet():
    once = adapters.attach(weights.load_sd("tiny-sd", dtype=torch.float32).unet, "lora:rank=2")
    twice = copy.deepcopy(once)
    checkpoint_blocks(twice)
    x, cond = torch.randn(1, *once.latent_shape), torch.randn(1, 4, once.config.text_width)
    outs = [model(x, torch.tensor([500]), cond) for model in (once, twice)]
    for out in outs:
        out.square().sum().backward()
    assert torch.equal(*outs)
    for a, b in zip(*(adapters.trainable_parameters(model).values() for model in (once, twice)), strict=True):
        assert torch.equal(a.grad, b.grad)

"""The same steps with blocks compiled by torch.compile, as --compile does, and what the first call of one costs."""

import os
from collections.abc import Callable

import torch
from torch import nn

import weights
from bench.sides.ours import BITFIT, forward, new_dit, trained
from dit import DiT
from ops.compiled import compile_in_place
from recipes.models.checkpoint import blocks_of
from weights.formats.published import SHIPPED


def compiled(model: nn.Module) -> nn.Module:
    """The model, whose blocks will be compiled."""
    compile_in_place(model, blocks_of(model))
    return model


def dit(size: dict, device: str) -> Callable:
    """A forward of two samples."""
    return forward(new_dit(size), torch.tensor([1, 2]), "bf16", device, compiled=True)


def bitfit(size: dict, device: str) -> Callable:
    """A step in which the biases train."""
    return trained(compiled(new_dit(size)), BITFIT, torch.arange(size["batch"]), device)


def tiny(size: dict, device: str) -> Callable:
    """A step of `python train.py` with the small model that ships."""
    return trained(compiled(shipped()), ["bitfit", "norm"], torch.arange(32) % 5, device)


def plain_tiny(size: dict, device: str) -> Callable:
    """The same, not compiled."""
    return trained(shipped(), ["bitfit", "norm"], torch.arange(32) % 5, device)


def shipped() -> DiT:
    """DiT-T/2, trained on generated products."""
    return weights.load(SHIPPED / "tiny-dit" / "model.safetensors", expect="dit", dtype=torch.float32)


def first(size: dict, device: str) -> Callable:
    """The first forward of `dit`, with an empty cache of torch's; its processor time is that of the compilers too."""
    model = new_dit(size)

    def step() -> dict:
        with torch._inductor.utils.fresh_cache(), torch._inductor.config.patch(compile_threads=1):
            torch.compiler.reset()
            before = sum(os.times()[:4])
            forward(model, torch.tensor([1, 2]), "bf16", device, compiled=True)()
            return {"cpu": sum(os.times()[:4]) - before}

    return step

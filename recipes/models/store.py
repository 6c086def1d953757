"""Frozen weights are stored in the precision that they are multiplied in; what trains stays in float32.

Under autocast a layer with float32 weights computes x W^T with bf16(W), cast anew in every call. Stored as bf16(W) it
computes the same numbers, in half the memory and without casts. Only Linears and Conv2ds are stored so: autocast leaves
norms, embeddings and tables in float32. A Conv2d's weight lies in memory as its input does then (ops/layout.py), or it
would be copied into that order in every call.
"""

from collections.abc import Sequence

import torch
from torch import Tensor, nn

import adapters
from adapters.core import specialize
from config.training import Blocks
from ops.compiled import compile_in_place
from ops.device import Compute
from ops.machine.pages import file_maps, forget
from ops.packed import pack
from ops.recompute import CastTwice
from recipes.models.checkpoint import blocks_of, checkpoint_blocks


@torch.no_grad()
def store_frozen(model: nn.Module, dtype: torch.dtype, specs: Sequence[str] = ()) -> nn.Module:
    """The frozen weights and biases of the Linears and Conv2ds in `dtype`, in place; float32 changes nothing.

    A layer with a mixin that reads its weights itself (not `through_super`, see adapters/core.py) keeps them as they
    are, and so does a model that is saved whole, by the specs of its adapters. What stays in float32 is copied off the
    map of the file that the model was read from, so that the map can go.
    """
    if dtype == torch.float32 or leaves_whole_model(specs):
        return model
    lowered = {
        parameter
        for layer in model.modules()
        if isinstance(layer, nn.Linear | nn.Conv2d) and through_super(type(layer))
        for parameter in (layer.weight, layer.bias)
        if parameter is not None and not parameter.requires_grad and parameter.dtype == torch.float32
    }
    maps = file_maps()
    for parameter in model.parameters():
        before = parameter.data
        parameter.data = as_multiplied(before, dtype) if parameter in lowered else before.clone()
        forget(before, maps)
    return model


def as_multiplied(weight: Tensor, dtype: torch.dtype) -> Tensor:
    """The weight or bias in `dtype`, a convolution's (C', C, h, w) with channels last."""
    return weight.to(dtype, memory_format=torch.channels_last if weight.ndim == 4 else torch.preserve_format)


def for_training(model: nn.Module, compute: Compute, blocks: Blocks, specs: Sequence[str] = ()) -> None:
    """The model with its adapters as it trains: frozen weights stored so, blocks computed twice or compiled.

    Of the weights that train no copy in another precision is kept (ops/recompute.py).
    """
    store_frozen(model, compute.dtype, specs)
    for layer in model.modules():
        if isinstance(layer, nn.Linear | nn.Conv2d) and layer.weight.requires_grad and through_super(type(layer)):
            specialize(layer, CastTwice)
    if blocks.checkpoint == "blocks":
        checkpoint_blocks(model)
    if blocks.compile:
        compile_in_place(model, blocks_of(model))


def for_sampling(model: nn.Module, compute: Compute, compiled: bool = False, gradient: bool = False) -> nn.Module:
    """The model as it is sampled with, in place: on the device, frozen and stored so, on a CPU packed (ops/packed.py).

    compiled: its blocks are compiled. gradient: samples are led by one that goes through it. Nothing is packed then,
    for compiled code reads plain weights alone and packed ones have no gradient. The autoencoder is not packed either:
    its images have so many rows that it gains nothing.
    """
    store_frozen(model.to(compute.device).requires_grad_(False), compute.dtype)
    if compiled:
        compile_in_place(model, blocks_of(model))
    elif not gradient:
        pack(model)
    return model


def through_super(layer_class: type) -> bool:
    """Whether torch's own forward alone reads the weights of such a layer."""
    own = [cls for cls in layer_class.mro() if "forward" in vars(cls) and not cls.__module__.startswith("torch.")]
    return all(vars(cls).get("through_super", False) for cls in own)


def leaves_whole_model(specs: Sequence[str]) -> bool:
    """Whether all of a part trains, so that a run saves the model and no adapter file."""
    return any(adapters.split(spec)[1] == "full" for spec in specs)

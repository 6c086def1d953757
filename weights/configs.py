"""The kinds of models that this package reads and writes: one row per kind, and what all of them share."""

from collections.abc import Callable
from dataclasses import fields, replace
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from dit import DiT, DiTConfig
from unet import VAE, ControlConfig, ControlNet, UNet, UNetConfig, VAEConfig
from unet.text import TextConfig, TextEncoder
from weights import infer, settings


class Kind(NamedTuple):
    """size(config) is what the renames of its layouts depend on, measure(tensors) the same of a file's tensors."""

    words: str  # what an error calls it
    model: type[nn.Module]
    config: type
    size: Callable
    measure: Callable
    infer: Callable  # (layout, tensors, metadata, size, given, source) -> fields of the config
    json: Callable  # config -> diffusers' config.json
    folder: str  # of a diffusers pipeline
    stem: str  # of the weights in that folder


DIFFUSERS, TRANSFORMERS = "diffusion_pytorch_model", "model"
KINDS = {
    "dit": Kind(
        "a DiT",
        DiT,
        DiTConfig,
        lambda config: config.depth,
        infer.measure_dit,
        infer.infer_dit,
        settings.dit_json,
        "transformer",
        DIFFUSERS,
    ),
    "vae": Kind(
        "a VAE",
        VAE,
        VAEConfig,
        lambda config: len(config.channels),
        infer.measure_vae,
        infer.infer_vae,
        settings.vae_json,
        "vae",
        DIFFUSERS,
    ),
    "unet": Kind(
        "a UNet",
        UNet,
        UNetConfig,
        lambda config: (config.layers, config.text),
        infer.measure_unet,
        infer.infer_unet,
        settings.unet_json,
        "unet",
        DIFFUSERS,
    ),
    "controlnet": Kind(
        "a ControlNet",
        ControlNet,
        ControlConfig,
        lambda config: (config.layers, config.text, len(config.hint_widths)),
        infer.measure_controlnet,
        infer.infer_controlnet,
        settings.controlnet_json,
        "controlnet",
        DIFFUSERS,
    ),
    "text": Kind(
        "a text tower",
        TextEncoder,
        TextConfig,
        lambda config: config.layers,
        infer.measure_text,
        infer.infer_text,
        settings.text_json,
        "text_encoder",
        TRANSFORMERS,
    ),
}
ANY = ", ".join(kind.words for kind in [*KINDS.values()][:-1]) + f" or {KINDS['text'].words}"


def size_of(config):
    """What a layout's table depends on, by the config's kind."""
    return next(kind.size(config) for kind in KINDS.values() if type(config) is kind.config)


class NoDraws(TorchFunctionMode):
    """Random initialisation does nothing: on the meta device it changes nothing either, and torch would import its
    compiler for it, which takes longer than all the rest of loading a model.
    """

    def __torch_function__(self, function, types, args=(), kwargs=None):
        if getattr(function, "__module__", None) == nn.init.__name__:
            return None  # no layer looks at what an initialiser returns
        return function(*args, **(kwargs or {}))


def empty(kind: str, config) -> nn.Module:
    """A model of this shape without memory for its weights (the meta device)."""
    with torch.device("meta"), NoDraws():
        return KINDS[kind].model(config)


REMOVED = (("freq_divisor", None), ("norm2_eps", 1e-6))  # fields of older files, whose only value is a constant today


def from_dict(kind: str, values: dict, blame: str):
    """The config with these fields. ValueError, beginning with `blame`, where they do not fit its class."""
    try:
        values = {name: value for name, value in values.items() if (name, value) not in REMOVED}
        values = {name: tuple(value) if isinstance(value, list) else value for name, value in values.items()}
        config = KINDS[kind].config(**values)
        KINDS[kind].size(config)
        return config
    except (TypeError, AttributeError, ValueError) as error:
        raise ValueError(f"{blame}: {error}") from None


def overridden(config, overrides: dict):
    """The config with other values. ValueError for a name that is no field of it, or a value that does not fit."""
    known = [field.name for field in fields(config)]
    unknown = [name for name in overrides if name not in known]
    if unknown:
        raise ValueError(f"unknown override {unknown[0]!r}, a {type(config).__name__} has {', '.join(known)}")
    try:
        return replace(config, **overrides)
    except TypeError as error:
        raise ValueError(f"overrides {overrides} do not fit a {type(config).__name__}: {error}") from None


def kind_of(model: nn.Module) -> str:
    """The kind of a model; ValueError for any other class."""
    for name, kind in KINDS.items():
        if isinstance(model, kind.model):
            return name
    raise ValueError(f"expected {ANY}, found {type(model).__name__}")


def plain_state(model: nn.Module) -> dict[str, Tensor]:
    """The state dict of a model without adapters; ValueError naming the first that is not its class's own."""
    expected = empty(kind_of(model), model.config).state_dict()
    state = model.state_dict()
    odd = sorted(expected.keys() ^ state.keys())
    if odd or any(state[name].shape != tensor.shape for name, tensor in expected.items()):
        raise ValueError(
            f"expected the {len(expected)} plain tensors of a {type(model).__name__}, found {len(odd)} others "
            f"({', '.join(odd[:3])}): adapters must be folded first, and what does not fold is saved by save_adapter"
        )
    return state

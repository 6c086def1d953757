"""The kinds of models that this package reads and writes, a row each; a config and an empty model of a kind."""

from collections.abc import Callable
from dataclasses import asdict, fields
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from border import checked, checked_dataclass
from dit import DiT, DiTConfig
from unet import VAE, ControlConfig, ControlNet, UNet, UNetConfig, VAEConfig
from unet.text.encoder import TextConfig, TextEncoder
from weights.layouts import infer
from weights.layouts.renames import Size


class Kind(NamedTuple):
    """A kind of model. measure(tensors) finds in a file what `size_of` finds in a config."""

    words: str  # its name in errors
    model: type[nn.Module]
    config: type
    measure: Callable[[dict[str, Tensor]], Size]
    infer: Callable[[infer.Source], dict]  # the fields of the config
    folder: str  # of a diffusers pipeline
    stem: str = "diffusion_pytorch_model"  # of the weights in that folder


KINDS = {
    "dit": Kind("a DiT", DiT, DiTConfig, infer.measure_dit, infer.infer_dit, "transformer"),
    "vae": Kind("a VAE", VAE, VAEConfig, infer.measure_vae, infer.infer_vae, "vae"),
    "unet": Kind("a UNet", UNet, UNetConfig, infer.measure_unet, infer.infer_unet, "unet"),
    "controlnet": Kind(
        "a ControlNet", ControlNet, ControlConfig, infer.measure_controlnet, infer.infer_controlnet, "controlnet"
    ),
    "text": Kind(
        "a text encoder", TextEncoder, TextConfig, infer.measure_text, infer.infer_text, "text_encoder", "model"
    ),
}
Config = DiTConfig | VAEConfig | UNetConfig | ControlConfig | TextConfig
ANY = ", ".join(kind.words for kind in [*KINDS.values()][:-1]) + f" or {KINDS['text'].words}"


def size_of(config: Config) -> Size:
    """The part of a config on which the names of the model's tensors depend (weights/layouts/renames.py)."""
    match config:
        case ControlConfig():
            return config.layers, config.text, len(config.hint_widths)
        case UNetConfig():
            return config.layers, config.text
        case VAEConfig():
            return len(config.channels)
        case DiTConfig():
            return config.depth
        case TextConfig():
            return config.layers


class NoInit(TorchFunctionMode):
    """Skips random initialisation, which changes nothing on the meta device.

    There torch would import its compiler for it, which takes longer than all the rest of loading a model.
    """

    def __torch_function__(self, function: Callable, types: tuple, args: tuple = (), kwargs: dict | None = None):
        if getattr(function, "__module__", None) == nn.init.__name__:
            return None  # no layer uses what an initialiser returns
        return function(*args, **(kwargs or {}))


def empty(kind: str, config: Config) -> nn.Module:
    """A model of this config on the meta device, without memory for its weights."""
    with torch.device("meta"), NoInit():
        return KINDS[kind].model(config)


SIZE = (1, infer.LARGEST)  # of whole numbers
LIMITS = {field.name: SIZE for kind in KINDS.values() for field in fields(kind.config)} | {
    "class_dropout": (0, 1),
    "mlp_ratio": (1e-3, 1e3),
    "scaling_factor": (1e-6, 1e6),
    "skip": (0, infer.LARGEST),
    "text": (0, 1000),  # transformer blocks
    "pooled": (0, infer.LARGEST),
    "projection": (0, infer.LARGEST),
    "input_size": (1, 4096),  # a latent's side: 32,768 pixels
}
REMOVED = (("freq_divisor", None), ("norm2_eps", 1e-6))  # fields of older files, whose only value is a constant today


def from_dict(kind: str, values: dict, blame: str) -> Config:
    """The config with these fields. Raises ValueError, beginning with `blame`, where they do not fit its class."""
    try:
        values = checked(values, dict[str, Any], "config")
        values = {name: value for name, value in values.items() if (name, value) not in REMOVED}
        if isinstance(text := values.get("text"), list):  # in older files true or false
            values["text"] = [int(depth) if isinstance(depth, bool) else depth for depth in text]
        return checked_dataclass(KINDS[kind].config, values, LIMITS)
    except ValueError as error:
        raise ValueError(f"{blame}: {error}") from None


def with_overrides(config: Config, overrides: dict) -> Config:
    """The config with some fields changed. ValueError for a name that is no field, or a value that does not fit."""
    known = [field.name for field in fields(config)]
    unknown = [name for name in overrides if name not in known]
    if unknown:
        raise ValueError(f"unknown override {unknown[0]!r}, a {type(config).__name__} has {', '.join(known)}")
    try:
        return checked_dataclass(type(config), asdict(config) | overrides, LIMITS)
    except ValueError as error:
        raise ValueError(f"overrides {overrides} do not fit a {type(config).__name__}: {error}") from None


def kind_of(model: nn.Module) -> str:
    """The kind of a model; ValueError for any other class."""
    for name, kind in KINDS.items():
        if isinstance(model, kind.model):
            return name
    raise ValueError(f"expected {ANY}, found {type(model).__name__}")


def plain_state(model: nn.Module) -> dict[str, Tensor]:
    """The state dict of a model. ValueError with the first names that are not its class's own, such as an adapter's."""
    expected = empty(kind_of(model), model.config).state_dict()
    state = model.state_dict()
    others = sorted(expected.keys() ^ state.keys())
    if others or any(state[name].shape != tensor.shape for name, tensor in expected.items()):
        raise ValueError(
            f"expected the {len(expected)} plain tensors of a {type(model).__name__}, found {len(others)} others "
            f"({', '.join(others[:3])}): merge its adapters first, or save them with save_adapter"
        )
    return state

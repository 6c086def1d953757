"""The parts of a Stable Diffusion checkpoint: UNet, autoencoder (which DiT shares), text encoder and tokenizer."""

import warnings

from unet.conditioned import TextConditioned
from unet.control import ControlConfig, ControlledText, ControlNet, ControlNets
from unet.inpaint import MaskedText
from unet.model import UNet, UNetConfig
from unet.text.encoder import TextConfig, TextEncoder
from unet.text.pair import TextPair, TokenizerPair
from unet.text.prompt import encode_prompts
from unet.text.tokenizer import Tokenizer
from unet.vae import VAE, VAEConfig

__all__ = [
    "ControlConfig",
    "ControlNet",
    "ControlNets",
    "MaskedText",
    "ControlledText",
    "TextConditioned",
    "TextConfig",
    "TextEncoder",
    "TextPair",
    "Tokenizer",
    "TokenizerPair",
    "UNet",
    "UNetConfig",
    "VAE",
    "VAEConfig",
    "encode_prompts",
]


RENAMED = {"TextTower": "TextEncoder"}  # old names, kept for one release


def __getattr__(name: str) -> object:
    if name not in RENAMED:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    warnings.warn(f"{__name__}.{name} is called {__name__}.{RENAMED[name]} now", FutureWarning, stacklevel=2)
    return globals()[RENAMED[name]]

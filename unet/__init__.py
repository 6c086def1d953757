"""The parts of a Stable Diffusion checkpoint: UNet, autoencoder (which DiT shares), text encoder and tokenizer."""

from unet.conditioned import TextConditioned
from unet.control import ControlConfig, ControlledText, ControlNet
from unet.model import UNet, UNetConfig
from unet.prompt import encode_prompts
from unet.text import TextConfig, TextEncoder
from unet.tokenizer import Tokenizer
from unet.vae import VAE, VAEConfig

__all__ = [
    "ControlConfig",
    "ControlNet",
    "ControlledText",
    "TextConditioned",
    "TextConfig",
    "TextEncoder",
    "Tokenizer",
    "UNet",
    "UNetConfig",
    "VAE",
    "VAEConfig",
    "encode_prompts",
]

"""What is inside one Stable Diffusion checkpoint: UNet, autoencoder (which DiT shares), text tower and tokenizer."""
from .conditioned import TextConditioned
from .control import ControlConfig, ControlledText, ControlNet
from .model import UNet, UNetConfig
from .prompt import encode_prompts
from .text import TextConfig, TextTower
from .tokenizer import Tokenizer
from .vae import VAE, VAEConfig

__all__ = ["ControlConfig", "ControlNet", "ControlledText", "TextConditioned", "TextConfig", "TextTower", "Tokenizer",
           "UNet", "UNetConfig", "VAE", "VAEConfig", "encode_prompts"]  # fmt: skip

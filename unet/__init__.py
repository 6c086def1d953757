"""What is inside one Stable Diffusion checkpoint: UNet, autoencoder (which DiT shares), text tower and tokenizer."""
from .model import UNet, UNetConfig
from .vae import VAE, VAEConfig

__all__ = ["UNet", "UNetConfig", "VAE", "VAEConfig"]

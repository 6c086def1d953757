"""What is inside one Stable Diffusion checkpoint. So far the autoencoder, which DiT shares."""
from .vae import SIZES, VAE, VAEConfig

__all__ = ["SIZES", "VAE", "VAEConfig"]

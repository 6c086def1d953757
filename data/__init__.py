"""Images: sources, decoding, transforms and the latent cache; folders, generated photographs, and what runs write."""

from data.image_set import ImageSet
from data.source import load

__all__ = ["ImageSet", "load"]

"""Images: folder layouts, decoding, transforms, the latent cache, and generated product defects and logos."""
from .source import ImageSet, load

__all__ = ["ImageSet", "load"]

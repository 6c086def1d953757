"""Images: folder layouts, decoding, transforms, the latent cache, and generated product defects."""
from .source import ImageSet, load

__all__ = ["ImageSet", "load"]

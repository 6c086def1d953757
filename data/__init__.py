"""Images: folder layouts, decoding, transforms, the latent cache, and generated product defects and logos."""

from data.source import ImageSet, load

__all__ = ["ImageSet", "load"]

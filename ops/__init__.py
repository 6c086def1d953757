"""What both backbones share: attention and the sinusoidal embedding."""

from ops.attention import attention
from ops.embed import timestep_embedding

__all__ = ["attention", "timestep_embedding"]

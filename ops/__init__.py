"""What all rooms compute with: attention, the timestep's sinusoid, the device and its precision, random streams."""

from ops.attention import attention
from ops.doubled import doubled
from ops.embed import timestep_embedding
from ops.layout import channels_last
from ops.recompute import by_shape, normed, recomputed, with_gradient

__all__ = [
    "attention",
    "by_shape",
    "channels_last",
    "doubled",
    "normed",
    "recomputed",
    "timestep_embedding",
    "with_gradient",
]

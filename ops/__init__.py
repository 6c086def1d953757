"""What all rooms compute with: attention, the timestep's sinusoid, the device and its precision, random streams."""

from ops.attention import attention
from ops.embed import timestep_embedding

__all__ = ["attention", "timestep_embedding"]

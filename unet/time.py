"""How the UNet hears the timestep."""

import torch
from torch import Tensor, nn

from ops import timestep_embedding


class TimestepEmbedder(nn.Sequential):
    """Linear(SiLU(Linear(sinusoid(t)))). A Sequential, so that its layers have the published numbers, 0 and 2."""

    def __init__(self, channels: int, width: int):
        super().__init__(nn.Linear(channels, width), nn.SiLU(), nn.Linear(width, width))

    def forward(self, t: Tensor, dtype: torch.dtype) -> Tensor:
        """t (B,) -> (B, width). The sinusoid is computed in float32 and enters the layers in `dtype`, that of x."""
        return super().forward(timestep_embedding(t, self[0].in_features).to(dtype))

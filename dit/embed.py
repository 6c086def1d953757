"""What enters the transformer: patches, their positions, the timestep, the class."""

import torch
from einops import rearrange
from torch import Tensor, nn

from ops import timestep_embedding

SINUSOID = 256  # width of the sinusoid, the same for every size in the official code


class PatchEmbed(nn.Module):
    """One token per p x p patch: a convolution with stride p, tokens in row-major order."""

    def __init__(self, in_channels: int, width: int, patch: int):
        super().__init__()
        self.proj = nn.Conv2d(in_channels, width, kernel_size=patch, stride=patch)

    def forward(self, x: Tensor) -> Tensor:
        """x (B, C, H, W) -> (B, T, D), T = H W / p^2."""
        return rearrange(self.proj(x), "b d h w -> b (h w) d").contiguous()  # (B, T, D), see ops/compiled.py


def position_table(width: int, rows: int, columns: int) -> Tensor:
    """2-D sin-cos table (1, rows * columns, width) float32: [axis(column), axis(row)], each over half the width.

    axis(pos) over d features = [sin(pos w), cos(pos w)],  w_j = 10000^(-j / (d/2)),  j = 0 .. d/2 - 1
    (He et al. 2022, MAE, arXiv 2111.06377). Raises ValueError for a width that is not a multiple of 4.
    """
    if width % 4:
        raise ValueError(f"a 2-D sin-cos table needs a width that is a multiple of 4, found {width}")
    quarter = width // 4
    omega = 10000.0 ** -(torch.arange(quarter, dtype=torch.float64, device="cpu") / quarter)  # (D/4,)

    def axis(length: int) -> Tensor:
        angle = torch.arange(length, dtype=torch.float64, device="cpu")[:, None] * omega
        return torch.cat([angle.sin(), angle.cos()], dim=1)  # (length, D/2)

    by_column = axis(columns)[None].expand(rows, columns, 2 * quarter)
    by_row = axis(rows)[:, None].expand(rows, columns, 2 * quarter)
    return rearrange(torch.cat([by_column, by_row], dim=2), "h w d -> 1 (h w) d").float()  # (1, T, D)


class TimestepEmbedder(nn.Module):
    """Linear(SiLU(Linear(sinusoid(t))))."""

    def __init__(self, width: int):
        super().__init__()
        self.mlp = nn.Sequential(nn.Linear(SINUSOID, width), nn.SiLU(), nn.Linear(width, width))

    def forward(self, t: Tensor, dtype: torch.dtype) -> Tensor:
        """t (B,) -> (B, D). The sinusoid is computed in float32 and enters the layers in `dtype`, the weights' own."""
        return self.mlp(timestep_embedding(t, SINUSOID).to(dtype))  # (B, D)


class LabelEmbedder(nn.Module):
    """One row per class, and the null row (id = number of classes) after them where the model has one.

    The official module also replaces labels by the null id at random in training mode. Here the training recipe does
    that, so that the same labels always give the same rows and model.train() changes no condition.
    """

    def __init__(self, rows: int, width: int):
        super().__init__()
        self.embedding_table = nn.Embedding(rows, width)

    def forward(self, y: Tensor) -> Tensor:
        """y (B,) integer ids -> (B, D). Raises ValueError for an id outside the table."""
        rows = self.embedding_table.num_embeddings
        # reading the values would break a compiled graph in two, and a meta tensor has none
        if not (y.is_meta or torch.compiler.is_compiling()) and ((y < 0) | (y >= rows)).any():
            raise ValueError(f"class labels must lie in 0..{rows - 1}, found {y.min().item()}..{y.max().item()}")
        return self.embedding_table(y)  # (B, D)

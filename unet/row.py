"""What Stable Diffusion XL is told, as one row of numbers: a text and six sizes of the image.

    row = [L states, pooled text, sizes]                                                (B, L D + P + 6)

Podell et al. 2023, arXiv 2307.01952, sec. 2.2. As a row, a text goes through guidance, caches and batches like any
other condition. The sizes are height and width of the original image, top and left of the crop, height and width of the
crop. They come last, so that a row without them goes on as another does (sampling/guidance.py). A row of zeros and
sizes is no text at all: so XL was trained without one.
"""

from collections.abc import Sequence

import torch
from torch import Tensor

SIZE_NUMBERS = 6
SINUSOID = 256  # width of the embedding of each size


def pack(states: Tensor, pooled: Tensor) -> Tensor:
    """[states (B, L, D), pooled (B, P)] as rows (B, L D + P), in float32."""
    return torch.cat([states.float().flatten(1), pooled.float()], dim=1)


def sized(cond: Tensor, sizes: Sequence[int] | Tensor) -> Tensor:
    """Rows (B, N) with these six sizes at their end, (6,) or (B, 6). Stable Diffusion 1 and 2 have none."""
    if cond.dim() == 3:
        return cond
    sizes = torch.as_tensor(sizes, device=cond.device).to(cond.dtype)
    return torch.cat([cond, sizes.expand(len(cond), -1)], dim=1)


def nothing(cond: Tensor) -> Tensor:
    """What guidance leads away from where no negative prompt is given: XL's zeros, else cond of the empty text."""
    return torch.zeros_like(cond) if cond.dim() == 2 else cond


def split_row(row: Tensor, width: int, pooled: int) -> tuple[Tensor, Tensor, Tensor]:
    """Rows (B, L D + P + 6) -> states (B, L, D), pooled text (B, P), sizes (B, 6). width: D; pooled: P."""
    tail = pooled + SIZE_NUMBERS
    if row.dim() != 2 or row.shape[1] <= tail or (row.shape[1] - tail) % width:
        expected = f"rows of L x {width} states, {pooled} pooled and {SIZE_NUMBERS} sizes"
        raise ValueError(f"cond must be {expected}, found {tuple(row.shape)}")
    states, text, sizes = row.split([row.shape[1] - tail, pooled, SIZE_NUMBERS], dim=1)
    return states.unflatten(1, (-1, width)), text, sizes

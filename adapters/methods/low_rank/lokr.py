"""LoKr: a trained Kronecker product beside a frozen layer (LyCORIS, Yeh et al. 2024, arXiv 2309.14859).

    y = W x + b + s (w1 (x) w2) x        w1 (o1, i1),  w2 (o2, i2),  out = o1 o2,  in = i1 i2;  w2 = 0 at the start

With x as a matrix X (i1, i2), row by row, (w1 (x) w2) x is w1 X w2^T (o1, o2), and no matrix as large as W is made:

     x -> X (..., i1, i2)
          |
    w2 (o2, i2)        each of the i1 rows of X
          |
    w1 (o1, i1)        mixes the rows
          |
     y (..., o1 o2)

o1 divides out and i1 in, at most `factor` and at most the square root, so that w1 is the smaller of the two. w2 may
be a product B A of a `rank`; then s = alpha / rank, else s = 1. For a convolution w2, or A, has the layer's kernel,
stride and padding. w1 and B start uniform in +-1/sqrt(i1) and +-1/sqrt(rank), w2 or A at 0, as in LyCORIS, whose names
the parts have.
"""

import math

import torch
import torch.nn.functional as F
from torch import nn

from adapters.core import specialize
from adapters.methods.low_rank.lora import ATTENTION
from adapters.methods.low_rank.start import layers_for


class LoKr:
    """y = W x + b + s (w1 (x) w2) x, over a Linear. Merges to W + s (w1 (x) w2)."""

    added, through_super = ("lokr_w1", "lokr_w2", "lokr_w2_a", "lokr_w2_b", "lokr_scale"), True

    def setup(self, factor: int, rank: int | None, alpha: float, generator: torch.Generator | None) -> None:
        out, wide, *kernel = self.weight.shape
        o1, i1 = divisor(out, factor), divisor(wide, factor)
        o2, i2 = out // o1, wide // i1
        # as in LyCORIS: from half of the larger side on two factors save nothing, and w2 is whole
        rank = None if rank is None or 2 * rank >= max(o2, i2) else rank
        like = self.weight
        self.lokr_w1 = uniform(like, (o1, i1), i1, generator)
        whole = nn.Parameter(like.new_zeros(o2, i2, *kernel)) if rank is None else None
        self.register_parameter("lokr_w2", whole)
        self.register_parameter("lokr_w2_a", None if rank is None else uniform(like, (o2, rank), rank, generator))
        second = None if rank is None else nn.Parameter(like.new_zeros(rank, i2, *kernel))
        self.register_parameter("lokr_w2_b", second)
        self.lokr_scale = 1.0 if rank is None else alpha / rank

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """x (..., in) -> (..., out), or (B, in, H, W) -> (B, out, H', W') on a Conv2d."""
        return super().forward(x) + self.lokr_scale * self.kronecker(x)  # W x + b + s (w1 (x) w2) x

    def kronecker(self, x: torch.Tensor) -> torch.Tensor:
        """(w1 (x) w2) x, of the output's shape."""
        rows = x.unflatten(-1, (self.lokr_w1.shape[1], -1))  # (..., i1, i2)
        return torch.einsum("oi,...ik->...ok", self.lokr_w1.to(rows.dtype), self.by_w2(rows)).flatten(-2)

    def by_w2(self, rows: torch.Tensor) -> torch.Tensor:
        """w2 x of each row: (..., i2) -> (..., o2)."""
        if self.lokr_w2 is not None:
            return F.linear(rows, self.lokr_w2)
        return F.linear(F.linear(rows, self.lokr_w2_b), self.lokr_w2_a)

    def merge(self) -> None:
        w2 = self.lokr_w2
        w2 = self.lokr_w2_a.float() @ self.lokr_w2_b.float().flatten(1) if w2 is None else w2.float().flatten(1)
        delta = self.lokr_scale * torch.kron(self.lokr_w1.float(), w2)  # in float32, as for LoRA
        self.weight.copy_(self.weight.float() + delta.view_as(self.weight))

    def extra_repr(self) -> str:
        """The layer's own text with the sizes of the two factors, as print(model) shows it."""
        o1, i1 = self.lokr_w1.shape
        rank = "" if self.lokr_w2 is not None else f", rank={len(self.lokr_w2_b)}"
        return f"{super().extra_repr()}, w1={o1}x{i1}, w2={len(self.weight) // o1}x{self.weight.shape[1] // i1}{rank}"


class ConvLoKr(LoKr):
    """The same on a Conv2d: w2, or A, has its kernel, stride, padding and dilation."""

    def kronecker(self, x: torch.Tensor) -> torch.Tensor:
        """(w1 (x) w2) x."""
        i1 = self.lokr_w1.shape[1]
        rows = x.unflatten(1, (i1, -1)).flatten(0, 1)  # (B i1, i2, H, W)
        out = self.by_w2(rows).unflatten(0, (-1, i1))  # (B, i1, o2, H', W')
        return torch.einsum("oi,bikhw->bokhw", self.lokr_w1.to(out.dtype), out).flatten(1, 2)

    def by_w2(self, rows: torch.Tensor) -> torch.Tensor:
        """w2 x of each group of channels: (B, i2, H, W) -> (B, o2, H', W')."""
        if self.lokr_w2 is not None:
            return self._conv_forward(rows, self.lokr_w2, None)
        return F.conv2d(self._conv_forward(rows, self.lokr_w2_b, None), self.lokr_w2_a[..., None, None])


def lokr(
    model: nn.Module,
    generator: torch.Generator | None,
    *,
    factor: int = 8,
    rank: int | None = None,
    alpha: float | None = None,
    targets: str = ATTENTION,
) -> None:
    """A Kronecker product on every Linear and Conv2d whose dotted name the regex `targets` finds.

    factor: the largest o1 and i1. rank: of w2, None for a whole one; where it is half of w2's larger side or more, w2
    is whole too. alpha: numerator of the scale alpha / rank; None is rank, scale 1. Raises ValueError for numbers out
    of range, an alpha without a rank, no such layer, or a grouped convolution.
    """
    if factor < 1:
        raise ValueError(f"needs factor >= 1, found factor {factor}")
    if rank is None and alpha is not None:
        raise ValueError(f"alpha {alpha:g} scales a w2 of a rank, and a whole one is not scaled: give rank too")
    alpha = rank if alpha is None else alpha
    for layer in layers_for(model, 1 if rank is None else rank, 1.0 if alpha is None else alpha, targets):
        mixin = ConvLoKr if isinstance(layer, nn.Conv2d) else LoKr
        specialize(layer, mixin, factor=factor, rank=rank, alpha=alpha, generator=generator)


def divisor(number: int, factor: int) -> int:
    """The largest divisor that is at most the factor and the square root; a factor that divides gives the smaller part.

    LyCORIS' factorization, so that its reader, which works out the factor from the shapes, finds it.
    """
    if number % factor == 0:
        return min(factor, number // factor)
    return max(d for d in range(1, min(factor, math.isqrt(number)) + 1) if number % d == 0)


def uniform(like: torch.Tensor, shape: tuple[int, int], reads: int, generator: torch.Generator | None) -> nn.Parameter:
    """Uniform in +-1/sqrt(reads), Kaiming's for a layer of so many inputs; in the dtype and on the device of `like`."""
    # sampled in float32 on the generator's device: one seed gives one adapter on every device and dtype
    sample = torch.rand(shape, generator=generator, device=generator.device if generator else "cpu")
    return nn.Parameter(((2 * sample - 1) * reads**-0.5).to(like))

"""DoRA: the norm of each output's weights trains, and beside it their direction by LoRA (Liu et al. 2024).

    y = m V / |V| x + b,    V = W + (alpha / r) B A,    m = g |W|        g (out,) = 1 and B = 0 at the start

arXiv 2402.09353. |.| is the norm over all that one output reads, so m and g hold one number for each. The paper trains
m itself; g is m measured in the frozen norm, so that the start is exact on every device and whatever weights W are
loaded later, and half a strength is half way. The norms count as constants in the gradient (section 4.3). A and B
start as in `lora`.

The equation is about W, not about what other methods make of it, so DoRA goes under those on the same layer.
"""

import torch
import torch.nn.functional as F
from torch import nn

from adapters.core import specialize
from adapters.methods.low_rank.lora import ATTENTION
from adapters.methods.low_rank.start import factors, layers_for


class DoRA:
    """y = g |W| V / |V| x + b with V = W + s B A, on a Linear. Merges to g |W| V / |V|."""

    added = ("dora_down", "dora_up", "dora_scale", "dora_gain")
    innermost = True

    def setup(self, rank: int, alpha: float, generator: torch.Generator | None) -> None:
        self.dora_down, self.dora_up = factors(self.weight, rank, generator)
        self.dora_scale = alpha / rank
        self.dora_gain = nn.Parameter(self.weight.new_ones(len(self.weight)))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """As the layer: x (..., in) -> (..., out), or (B, in, H, W) -> (B, out, H', W')."""
        h, low_rank = super().forward(x), self.dora_scale * self.dora_low_rank(x)
        after = (1,) * (self.weight.dim() - 2)  # the axes of h after its channels
        c = self.dora_gain * self.dora_ratio(self.dora_v())  # (out,)
        wx = h if self.bias is None else h - self.bias.to(h.dtype).view(-1, *after)
        # V x + b and what c adds to it: c V x + b would round the sum of W x and b even at c = 1
        return h + low_rank + (c - 1).to(h.dtype).view(-1, *after) * (wx + low_rank)

    def dora_low_rank(self, x: torch.Tensor) -> torch.Tensor:
        """B A x."""
        return F.linear(F.linear(x, self.dora_down), self.dora_up)

    @torch.no_grad()
    def dora_v(self) -> torch.Tensor:
        """V (out, in) or (out, in * k * k), in float32."""
        low_rank = self.dora_up.float().flatten(1) @ self.dora_down.float().flatten(1)
        return self.weight.float().flatten(1) + self.dora_scale * low_rank

    @torch.no_grad()
    def dora_ratio(self, v: torch.Tensor) -> torch.Tensor:
        """|W| / |V| (out,), exactly 1 where B = 0. The norm of weights that are all 0 stays 0."""
        norm, of_v = (torch.linalg.vector_norm(rows, dim=1) for rows in (self.weight.float().flatten(1), v))
        return norm / of_v.clamp(min=torch.finfo(v.dtype).tiny)

    def merge(self) -> None:
        v = self.dora_v()
        self.weight.copy_(((self.dora_gain * self.dora_ratio(v))[:, None] * v).view_as(self.weight))


class ConvDoRA(DoRA):
    """The same on a Conv2d: A has its kernel, stride, padding and dilation, B is 1x1."""

    def dora_low_rank(self, x: torch.Tensor) -> torch.Tensor:
        """B A x."""
        return F.conv2d(self._conv_forward(x, self.dora_down, None), self.dora_up)


def dora(
    model: nn.Module,
    generator: torch.Generator | None,
    *,
    rank: int = 4,
    alpha: float | None = None,
    targets: str = ATTENTION,
) -> None:
    """Magnitude and direction of every Linear and Conv2d whose dotted name the regex `targets` finds.

    The options and their ValueErrors are those of `lora`.
    """
    alpha = rank if alpha is None else alpha
    for layer in layers_for(model, rank, alpha, targets):
        mixin = ConvDoRA if isinstance(layer, nn.Conv2d) else DoRA
        specialize(layer, mixin, rank=rank, alpha=alpha, generator=generator)

"""LoRA: a trained low-rank path beside a frozen layer (Hu et al. 2021, arXiv 2106.09685).

    y = W x + b + (alpha / r) B A x        A (r, in) ~ N(0, 1/r^2),  B (out, r) = 0 at the start

          x (..., in)
          |----------------.
    W, b frozen         A lora_down (r, in)
          |             B lora_up (out, r)
          |<-- alpha / r --'
          y (..., out)

`specialize` of adapters/core.py makes `LoRALinear(LoRA, nn.Linear)` of the mixin and the layer's own class, so that
`super().forward(x)` below is nn.Linear's W x + b.

For a convolution A is one too, with the layer's kernel, stride and padding and r output channels, and B is 1x1.
A starts with standard deviation 1/r as in diffusers and PEFT ("gaussian"); the paper's code has a Kaiming-uniform
start. `lora_down` and `lora_up` are the names of the kohya file layout.
"""

import torch
import torch.nn.functional as F
from torch import nn

from adapters.core import specialize
from adapters.methods.low_rank.plus import check_options, scale_of
from adapters.methods.low_rank.start import factors, layers_for

# DiT's fused qkv; every attention projection of Stable Diffusion's UNet and text encoder, as in diffusers' scripts
ATTENTION = r"\b(attn\.qkv|attn[12]?\.(to_q|to_k|to_v|to_out(\.0)?))$"


class LoRA:
    """A mixin: y = W x + b + (alpha / r) B A x, over an nn.Linear. Merges to W + (alpha / r) B A."""

    added, through_super = ("lora_down", "lora_up", "lora_scale", "lora_ratio"), True

    def setup(self, rank: int, scale: float, ratio: float, generator: torch.Generator | None) -> None:
        self.lora_down, self.lora_up = factors(self.weight, rank, generator)
        self.lora_scale, self.lora_ratio = scale, ratio

    def rate_factors(self) -> dict[str, float]:
        """B's rate over that of everything else, LoRA+."""
        return {"lora_up": self.lora_ratio}

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """x (..., in) -> (..., out), or (B, in, H, W) -> (B, out, H', W') on a Conv2d."""
        return super().forward(x) + self.lora_scale * self.low_rank(x)  # W x + b + (alpha / r) B A x

    def low_rank(self, x: torch.Tensor) -> torch.Tensor:
        """B A x, of the output's shape."""
        return F.linear(F.linear(x, self.lora_down), self.lora_up)

    def merge(self) -> None:
        # float32: bf16 would round B A before it is added, and again after
        delta = self.lora_scale * self.lora_up.float().flatten(1) @ self.lora_down.float().flatten(1)
        self.weight.copy_(self.weight.float() + delta.view_as(self.weight))

    def extra_repr(self) -> str:
        """The layer's own text with rank and alpha, as print(model) shows it."""
        rank = len(self.lora_down)
        return f"{super().extra_repr()}, rank={rank}, alpha={self.lora_scale * rank:g}"


class ConvLoRA(LoRA):
    """The same on a Conv2d: A has its kernel, stride, padding and dilation, B is 1x1."""

    def low_rank(self, x: torch.Tensor) -> torch.Tensor:
        """B A x."""
        return F.conv2d(self._conv_forward(x, self.lora_down, None), self.lora_up)


def lora(
    model: nn.Module,
    generator: torch.Generator | None,
    *,
    rank: int = 4,
    alpha: float | None = None,
    stable: int = 0,
    ratio: float = 1.0,
    targets: str = ATTENTION,
) -> None:
    """A low-rank path on every Linear and Conv2d whose dotted name the regex `targets` finds.

    alpha: numerator of the scale alpha / rank; None is rank, scale 1. rank 4 is the default of diffusers' scripts.
    stable: 1 for the scale alpha / sqrt(rank). ratio: of B's learning rate to A's (adapters/methods/low_rank/plus.py).
    Raises ValueError for options out of range, stable without alpha, no such layer, or a grouped convolution.
    """
    check_options(alpha, stable, ratio)
    alpha = rank if alpha is None else alpha
    for layer in layers_for(model, rank, alpha, targets):
        mixin = ConvLoRA if isinstance(layer, nn.Conv2d) else LoRA
        specialize(layer, mixin, rank=rank, scale=scale_of(rank, alpha, stable), ratio=ratio, generator=generator)

"""Bottleneck adapters: a small two-layer network on the MLP branch of every block.

    f(z) = scale * (W_up relu(W_down z + b_down) + b_up)        W_up, b_up, b_down = 0 at the start
    parallel     y = mlp(x) + f(x)                  He et al. 2022, arXiv 2110.04366
    sequential   y = h + f(h),  h = mlp(x)          Houlsby et al. 2019, arXiv 1902.00751

x is what the block gives its MLP: in DiT the tokens after norm and modulation. AdaptFormer (Chen et al. 2022, arXiv
2205.13535) feeds its parallel form from the residual stream before the norm, which is out of reach without a change of
the block. In DiT the gate of the MLP branch multiplies f too. There is one adapter a block, none after attention.

W_down starts uniform in +-1/sqrt(D) (Kaiming with a = sqrt 5) as in AdaptFormer's code, and its usual width 64 and
scale 0.1 are the defaults of both forms; the scale is a factor, not trained, and 1 gives Houlsby's equation. There is
no dropout. The relu keeps f from being written into W, so a bottleneck does not merge.
"""

import math

import torch
import torch.nn.functional as F
from torch import nn

from adapters.core import match, specialize

# the last Linear of an MLP, whose output is as wide as the MLP's input: DiT's and CLIP's, a Stable Diffusion UNet's
MLP_ENDS = r"\b(mlp\.fc2|ff\.net\.2)$"


class Bottleneck:
    """f and its parameters. It has no `merge`, so `merge(model)` leaves it on its layer, and every mixin over it."""

    added = ("bottleneck_down", "bottleneck_down_bias", "bottleneck_up", "bottleneck_up_bias", "bottleneck_scale")
    through_super = True

    def setup(self, like: torch.Tensor, width: int, scale: float, generator: torch.Generator | None) -> None:
        """like: a tensor (D, ...) with the branch's D, dtype and device."""
        D = len(like)
        # sampled in float32 on the generator's device: one seed gives one adapter on every device and dtype
        uniform = torch.rand(width, D, generator=generator, device=generator.device if generator else "cpu")
        self.bottleneck_down = nn.Parameter(((2 * uniform - 1) / math.sqrt(D)).to(like))
        self.bottleneck_down_bias = nn.Parameter(like.new_zeros(width))
        self.bottleneck_up = nn.Parameter(like.new_zeros(D, width))
        self.bottleneck_up_bias = nn.Parameter(like.new_zeros(D))
        self.bottleneck_scale = scale

    def f(self, z: torch.Tensor) -> torch.Tensor:
        """z (..., D) -> (..., D)."""
        inner = F.relu(F.linear(z, self.bottleneck_down, self.bottleneck_down_bias))  # (..., width)
        return self.bottleneck_scale * F.linear(inner, self.bottleneck_up, self.bottleneck_up_bias)  # (..., D)


class ParallelBottleneck(Bottleneck):
    """y = mlp(x) + f(x), on a whole MLP."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """x (..., D) -> (..., D)."""
        return super().forward(x) + self.f(x)


class SequentialBottleneck(Bottleneck):
    """y = h + f(h) with h = W x + b, on the last Linear of an MLP."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """x (..., in) -> (..., D)."""
        h = super().forward(x)
        return h + self.f(h)


def bottleneck(
    model: nn.Module, generator: torch.Generator | None, *, width: int = 64, form: str = "parallel", scale: float = 0.1
) -> None:
    """One adapter on the MLP of each block, `form` parallel or sequential.

    Raises ValueError for width < 1, another form, scale not positive and finite, or no MLP of a known name.
    """
    if form not in ("parallel", "sequential"):
        raise ValueError(f"form must be parallel or sequential, found {form!r}")
    if width < 1 or not 0 < scale < math.inf:
        raise ValueError(f"needs width >= 1 and a finite scale > 0, found width {width}, scale {scale}")
    for name, end in match(model, MLP_ENDS, nn.Linear):
        options = {"like": end.weight, "width": width, "scale": scale, "generator": generator}
        if form == "sequential":
            specialize(end, SequentialBottleneck, **options)
        else:
            mlp = name.removesuffix(".fc2").removesuffix(".net.2")
            specialize(model.get_submodule(mlp), ParallelBottleneck, **options)

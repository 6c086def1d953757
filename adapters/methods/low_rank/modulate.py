"""Modulation by a low-rank matrix: frozen weights are multiplied, entry by entry (DriveDiTFit, Tu et al. 2024).

    y = (W o V U^T) x + b o m + a        V (out, r), U (in, r) = 1/sqrt(r),  m (out,) = 1,  a (out,) = 0 at the start

arXiv 2407.15661; o is the entrywise product. V U^T is all ones at the start, but 1/sqrt(r) rounds, and so would its
product. With s = 1/sqrt(r) and the changes dV = V - s, dU = U - s it is computed as

    V U^T = 1 + s (dV 1 1^T + 1 1^T dU^T) + dV dU^T

which is exactly 1 while nothing changed, and keeps small changes under autocast, where bfloat16 has none between 1 and
1.0078. V and U themselves are the published ones and learn as they do. Weight decay pulls V, U and m to 0, so as there.

In DiT the layers are those of the released flags: attention, adaLN, the timestep's MLP and the last Linear, not the
MLPs of the blocks. The equivalents in a Stable Diffusion (attention, timestep) are this package's choice. The rotary
positions of the released code are left out: they change what the pretrained network computes.
"""

import torch
import torch.nn.functional as F
from torch import nn

from adapters.core import match, specialize

MODULATED = (
    r"\b(attn\.(qkv|proj)|adaLN_modulation\.1|t_embedder\.mlp\.[02]|final_layer\.linear"  # DiT
    r"|attn[12]?\.to_(q|k|v|out(\.0)?)|time_embed\.[02]|time_emb_proj)$"  # Stable Diffusion
)


class Modulation:
    """y = (W o V U^T) x + b o m + a, on a Linear. Merges to W o V U^T and b o m + a."""

    added = ("modulate_v", "modulate_u", "modulate_bias_mul", "modulate_bias_add", "modulate_start")
    innermost = True

    def setup(self, rank: int) -> None:
        start = self.weight.new_full((), rank**-0.5, device="cpu")  # s in the dtype of V and U
        self.modulate_start = start.item()
        self.modulate_v = nn.Parameter(self.weight.new_full((self.out_features, rank), self.modulate_start))
        self.modulate_u = nn.Parameter(self.weight.new_full((self.in_features, rank), self.modulate_start))
        has = self.bias is not None
        self.register_parameter("modulate_bias_mul", nn.Parameter(torch.ones_like(self.bias)) if has else None)
        self.register_parameter("modulate_bias_add", nn.Parameter(torch.zeros_like(self.bias)) if has else None)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """x (..., in) -> (..., out)."""
        return F.linear(x, self.modulated(), self.modulated_bias())

    def modulated(self) -> torch.Tensor:
        """W o V U^T (out, in)."""
        s = self.modulate_start
        dv, du = self.modulate_v.float() - s, self.modulate_u.float() - s
        factor = 1 + s * (dv.sum(1, keepdim=True) + du.sum(1)) + dv @ du.mT  # (out, in)
        return (self.weight * factor).to(self.weight.dtype)

    def modulated_bias(self) -> torch.Tensor | None:
        """b o m + a (out,), None for a layer without b."""
        return None if self.bias is None else self.bias * self.modulate_bias_mul + self.modulate_bias_add

    def merge(self) -> None:
        self.weight.copy_(self.modulated())
        if self.bias is not None:
            self.bias.copy_(self.modulated_bias())


def modulate(model: nn.Module, generator: torch.Generator | None, *, rank: int = 2, targets: str = MODULATED) -> None:
    """A factor on every Linear whose dotted name the regex `targets` finds; rank 2 is that of the released code.

    Raises ValueError for rank < 1 or no such layer.
    """
    if rank < 1:
        raise ValueError(f"needs rank >= 1, found rank {rank}")
    for _, layer in match(model, targets, nn.Linear):
        specialize(layer, Modulation, rank=rank)

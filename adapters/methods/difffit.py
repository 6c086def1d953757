"""DiffFit: biases, norms and class rows train, and each residual branch gets a new scale per channel.

    x = x + gamma1 * attn(x);   x = x + gamma2 * mlp(x)        gamma = 1 at the start

Xie et al. 2023, "DiffFit: Unlocking Transferability of Large Diffusion Models via Simple Parameter-Efficient
Fine-Tuning", arXiv 2304.06648. The norms become affine as in `norm`. In a DiT block the adaLN gate follows gamma; the
two commute.
"""

import re

import torch
from torch import nn

from adapters.core import match, specialize
from adapters.methods.in_place.bitfit import bitfit
from adapters.methods.in_place.classes import classes, has_table
from adapters.methods.in_place.norm import norm

# the last Linear of each residual branch: a DiT block's two, a Stable Diffusion text block's three
BRANCH_ENDS = r"\b(attn\.proj|mlp\.fc2|attn[12]\.to_out\.0|ff\.net\.2)$"


class Gamma:
    """y = gamma * (W x + b), gamma (D,). Merges to gamma W, gamma b."""

    added, through_super = ("gamma",), True

    def setup(self) -> None:
        self.gamma = nn.Parameter(torch.ones_like(self.weight[:, 0]))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """x (..., in) -> (..., D)."""
        return self.gamma * super().forward(x)

    def merge(self) -> None:
        self.weight.mul_(self.gamma[:, None])
        if self.bias is not None:
            self.bias.mul_(self.gamma)


def difffit(model: nn.Module, generator: torch.Generator | None, *, blocks: int | None = None) -> None:
    """Train the biases, norms, class table (where there is one) and gammas.

    blocks: how many blocks get gammas, counted from the deepest, the last in the model (the paper's ablation "28 -> 14"
    is blocks=14); None is all. Raises ValueError if the model has fewer, or no residual branch of a known name.
    """
    ends: dict[str, list[nn.Module]] = {}  # a block's name -> its branch ends
    for name, layer in match(model, BRANCH_ENDS, nn.Linear):
        ends.setdefault(re.sub(BRANCH_ENDS, "", name), []).append(layer)
    if blocks is not None and not 1 <= blocks <= len(ends):
        raise ValueError(f"blocks={blocks}, and the model has {len(ends)} blocks with residual branches")
    bitfit(model, generator)
    norm(model, generator)
    if has_table(model):
        classes(model, generator)
    for layers in list(ends.values())[-blocks if blocks else 0 :]:
        for layer in layers:
            specialize(layer, Gamma)

"""OFT: a trained rotation of a frozen layer's input, block by block (Qiu et al. 2023, arXiv 2306.07280).

    y = W R^T x + b,    R = diag(R_1, ..., R_K),    R_i = (I - S_i) (I + S_i)^-1,    S_i = (M_i - M_i^T) / 2

M_i (N, N), N = in / K, trains and is 0 at the start, so that R = I. S_i is skew-symmetric, and so its Cayley transform
R_i is orthogonal: the rows of W turn and keep their norms and the angles between them. K is the number of blocks; of
the K N^2 numbers K N (N - 1) / 2 are independent.

With eps > 0 it is the paper's constrained OFT: where the Frobenius norm of an M_i is over eps N^2 / sqrt(number of
trained blocks), the forward uses M_i scaled down to it. Published code projects the parameter itself, with eps 6e-5.
"""

import math

import torch
from torch import nn

from adapters.core import match, specialize
from adapters.methods.low_rank.lora import ATTENTION


class OFT:
    """y = W R^T x + b, on a Linear. Merges to W R^T."""

    added, through_super = ("oft_m", "oft_blocks", "oft_eps"), True

    def setup(self, blocks: int, share: bool, eps: float) -> None:
        side = self.in_features // blocks
        self.oft_m = nn.Parameter(self.weight.new_zeros(1 if share else blocks, side, side))  # (K or 1, N, N)
        self.oft_blocks, self.oft_eps = blocks, eps

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """x (..., in) -> (..., out)."""
        parts = x.unflatten(-1, (self.oft_blocks, -1))  # (..., K, N)
        turned = torch.einsum("...kn,knm->...km", parts, self.oft_rotations().to(x.dtype))  # R_i^T x_i, written as rows
        return super().forward(turned.flatten(-2))

    def oft_rotations(self) -> torch.Tensor:
        """R_1, ..., R_K (K or 1, N, N), in float32: bf16 has no solver, and its rotations would not be orthogonal."""
        m = self.oft_m.float()
        if self.oft_eps:
            radius = self.oft_eps * m[0].numel() / math.sqrt(len(m))
            m = m * (radius / torch.linalg.matrix_norm(m, keepdim=True).clamp(min=radius))
        s, one = (m - m.mT) / 2, torch.eye(m.shape[-1], device=m.device)
        return torch.linalg.solve(one + s, one - s)  # the two factors commute

    def merge(self) -> None:
        rows = self.weight.float().unflatten(-1, (self.oft_blocks, -1))  # (out, K, N)
        self.weight.copy_(torch.einsum("okn,kmn->okm", rows, self.oft_rotations()).flatten(-2))


def oft(
    model: nn.Module,
    generator: torch.Generator | None,
    *,
    blocks: int = 4,
    share: int = 0,
    eps: float = 0.0,
    targets: str = ATTENTION,
) -> None:
    """A rotation in so many `blocks` before every Linear whose dotted name the regex `targets` finds.

    share: 1 for one block that turns every part of the input. eps: of the constrained form, 0 for the free one.
    Raises ValueError for numbers out of range, no such layer, or an input that is not `blocks` equal parts, 2 or wider.
    """
    if share not in (0, 1) or not 0 <= eps < math.inf:
        raise ValueError(f"needs share 0 or 1 and a finite eps >= 0, found share {share}, eps {eps}")
    layers = match(model, targets, nn.Linear)
    for name, layer in layers:
        if blocks < 1 or layer.in_features % blocks or layer.in_features == blocks:
            wide = f"cannot rotate {name}: its input is {layer.in_features} wide"
            raise ValueError(f"{wide}, expected {blocks} equal blocks of at least 2")
    for _, layer in layers:
        specialize(layer, OFT, blocks=blocks, share=bool(share), eps=eps)

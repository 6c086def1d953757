"""The adaLN-Zero transformer block and the output layer (Peebles and Xie 2023, section 3.2).

Throughout, x (B, T, D) are the tokens and c (B, D) is the condition: timestep plus class.
"""

from einops import rearrange
from torch import Tensor, nn

from ops import attention, normed


def modulate(x: Tensor, shift: Tensor, scale: Tensor) -> Tensor:
    """x (1 + scale) + shift, with x (B, T, D) and one shift and scale (B, D) per sample."""
    return x * (1 + scale[:, None]) + shift[:, None]


class Attention(nn.Module):
    """proj(softmax(q k^T / sqrt(K)) v) over `heads` heads; qkv gives q, then k, then v, each head by head."""

    def __init__(self, width: int, heads: int):
        super().__init__()
        self.heads = heads
        self.qkv = nn.Linear(width, 3 * width)
        self.proj = nn.Linear(width, width)

    def forward(self, x: Tensor) -> Tensor:
        """x (B, T, D) -> (B, T, D)."""
        q, k, v = rearrange(self.qkv(x), "b t (three n k) -> three b n t k", three=3, n=self.heads)  # (B, N, T, K)
        return self.proj(rearrange(attention(q, k, v), "b n t k -> b t (n k)"))  # (B, T, D)


class Mlp(nn.Module):
    """fc2(gelu(fc1(x))), gelu by its tanh approximation."""

    def __init__(self, width: int, hidden: int):
        super().__init__()
        self.fc1 = nn.Linear(width, hidden)
        self.act = nn.GELU(approximate="tanh")
        self.fc2 = nn.Linear(hidden, width)

    def forward(self, x: Tensor) -> Tensor:
        """x (B, T, D) -> (B, T, D)."""
        return self.fc2(self.act(self.fc1(x)))


class Block(nn.Module):
    """x = x + gate1 attn(norm1(x) (1 + scale1) + shift1);  x = x + gate2 mlp(norm2(x) (1 + scale2) + shift2).

    (shift1, scale1, gate1, shift2, scale2, gate2) = Linear(SiLU(c)), all 0 in a new model: the block is the identity.
    """

    def __init__(self, width: int, heads: int, mlp_ratio: float = 4.0):
        super().__init__()
        self.norm1 = nn.LayerNorm(width, elementwise_affine=False, eps=1e-6)
        self.attn = Attention(width, heads)
        self.norm2 = nn.LayerNorm(width, elementwise_affine=False, eps=1e-6)
        self.mlp = Mlp(width, int(width * mlp_ratio))
        self.adaLN_modulation = nn.Sequential(nn.SiLU(), nn.Linear(width, 6 * width))

    def forward(self, x: Tensor, c: Tensor) -> Tensor:
        """x (B, T, D), c (B, D) -> (B, T, D)."""
        shift1, scale1, gate1, shift2, scale2, gate2 = self.adaLN_modulation(c).chunk(6, dim=1)  # (B, D) each
        x = x + gate1[:, None] * self.attn(normed(self.norm1, modulate, x, shift1, scale1))
        x = x + gate2[:, None] * self.mlp(normed(self.norm2, modulate, x, shift2, scale2))
        return x


class FinalLayer(nn.Module):
    """linear(norm(x) (1 + scale) + shift), (shift, scale) = Linear(SiLU(c)): one patch of output pixels per token."""

    def __init__(self, width: int, patch: int, out_channels: int):
        super().__init__()
        self.norm_final = nn.LayerNorm(width, elementwise_affine=False, eps=1e-6)
        self.linear = nn.Linear(width, patch * patch * out_channels)
        self.adaLN_modulation = nn.Sequential(nn.SiLU(), nn.Linear(width, 2 * width))

    def forward(self, x: Tensor, c: Tensor) -> Tensor:
        """x (B, T, D), c (B, D) -> (B, T, p p C), channel fastest."""
        shift, scale = self.adaLN_modulation(c).chunk(2, dim=1)  # (B, D) each
        return self.linear(modulate(self.norm_final(x), shift, scale))

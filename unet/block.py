"""The parts of the UNet: a residual block that reads the timestep, and a transformer that reads the text.

Throughout, x (B, C, H, W) are the features, emb (B, E) the timestep and cond (B, L, D) the states of the text encoder.
Inside a `SpatialTransformer` the parameters have the names of the published files, the original's and diffusers' alike.
"""

import torch.nn.functional as F
from einops import rearrange
from torch import Tensor, nn

from ops import attention, by_shape, normed, recomputed, with_gradient


class TimeResBlock(nn.Module):
    """x + conv2(silu(norm2(conv1(silu(norm1(x))) + time_emb_proj(emb)))), the skip a 1x1 where the width changes."""

    def __init__(self, channels: int, out: int, emb: int, groups: int):
        super().__init__()
        self.norm1 = nn.GroupNorm(groups, channels, eps=1e-5)
        self.conv1 = nn.Conv2d(channels, out, 3, padding=1)
        self.time_emb_proj = nn.Linear(emb, out)
        self.norm2 = nn.GroupNorm(groups, out, eps=1e-5)
        self.conv2 = nn.Conv2d(out, out, 3, padding=1)
        self.shortcut = nn.Conv2d(channels, out, 1) if channels != out else nn.Identity()

    def forward(self, x: Tensor, emb: Tensor) -> Tensor:
        """x (B, C, H, W), emb (B, E) after its SiLU -> (B, out, H, W)."""
        h = by_shape(self.conv1, normed(self.norm1, F.silu, x))  # (B, out, H, W)
        h = h + self.time_emb_proj(emb)[:, :, None, None]
        return self.shortcut(x) + by_shape(self.conv2, normed(self.norm2, F.silu, h))


class Attention(nn.Module):
    """to_out(softmax(q k^T / sqrt(K)) v) over `heads` heads, q from x, k and v from `context`, or from x itself.

    upcast: q, k and v go in as float32, because Stable Diffusion 2.1's products of q and k overflow float16.
    """

    def __init__(self, width: int, context: int, heads: int, upcast: bool):
        super().__init__()
        self.heads, self.upcast = heads, upcast
        self.to_q = nn.Linear(width, width, bias=False)
        self.to_k = nn.Linear(context, width, bias=False)
        self.to_v = nn.Linear(context, width, bias=False)
        self.to_out = nn.Sequential(nn.Linear(width, width))

    def forward(self, x: Tensor, context: Tensor | None = None) -> Tensor:
        """x (B, T, D), context (B, L, D') -> (B, T, D)."""
        context = x if context is None else context
        projected = self.to_q(x), self.to_k(context), self.to_v(context)
        q, k, v = (rearrange(y, "b t (n k) -> b n t k", n=self.heads) for y in projected)  # (B, N, T or L, K)
        dtype = v.dtype
        if self.upcast:  # autocast undoes it; its bfloat16 has float32's range, so nothing overflows there either
            q, k, v = q.float(), k.float(), v.float()
        mixed = attention(q, k, v).to(dtype)  # (B, N, T, K)
        return self.to_out(rearrange(mixed, "b n t k -> b t (n k)"))


class GEGLU(nn.Module):
    """a * gelu(b), [a, b] = W x + b (Shazeer 2020, arXiv 2002.05202), with the exact gelu."""

    def __init__(self, width: int, hidden: int):
        super().__init__()
        self.proj = nn.Linear(width, 2 * hidden)

    def forward(self, x: Tensor) -> Tensor:
        """x (B, T, D) -> (B, T, hidden)."""

        def gated(h: Tensor) -> Tensor:
            value, gate = h.chunk(2, dim=-1)
            return value * F.gelu(gate)

        return recomputed(gated, self.proj(x))


class FeedForward(nn.Module):
    """W2 geglu(x) + b2, four times as wide inside. Number 1 of the net is a dropout in the published code, always 0."""

    def __init__(self, width: int):
        super().__init__()
        self.net = nn.Sequential(GEGLU(width, 4 * width), nn.Identity(), nn.Linear(4 * width, width))

    def forward(self, x: Tensor) -> Tensor:
        """x (B, T, D) -> (B, T, D)."""
        return self.net(x)


class TransformerBlock(nn.Module):
    """x += attn1(norm1(x));  x += attn2(norm2(x), cond);  x += ff(norm3(x)): the image to itself, then to the text."""

    def __init__(self, width: int, text_width: int, heads: int, upcast: bool):
        super().__init__()
        self.norm1 = nn.LayerNorm(width, eps=1e-5)
        self.attn1 = Attention(width, width, heads, upcast)
        self.norm2 = nn.LayerNorm(width, eps=1e-5)
        self.attn2 = Attention(width, text_width, heads, upcast)
        self.norm3 = nn.LayerNorm(width, eps=1e-5)
        self.ff = FeedForward(width)

    def forward(self, x: Tensor, cond: Tensor) -> Tensor:
        """x (B, T, C), cond (B, L, D) -> (B, T, C)."""
        x = x + self.attn1(self.norm1(x))  # (B, T, C)
        x = x + self.attn2(self.norm2(x), cond)  # (B, T, C)
        return x + self.ff(self.norm3(x))


class SpatialTransformer(nn.Module):
    """x + proj_out(blocks(proj_in(norm(x)), cond)), every position a token (Rombach et al. 2022, sec. 3.3).

    linear: proj_in and proj_out are Linears, as in Stable Diffusion 2, or 1x1 convolutions, as in 1: the same map.
    """

    def __init__(
        self, channels: int, text_width: int, heads: int, groups: int, linear: bool, upcast: bool, depth: int = 1
    ):
        super().__init__()
        self.linear = linear
        self.norm = nn.GroupNorm(groups, channels, eps=1e-6)
        self.proj_in = nn.Linear(channels, channels) if linear else nn.Conv2d(channels, channels, 1)
        blocks = (TransformerBlock(channels, text_width, heads, upcast) for _ in range(depth))
        self.transformer_blocks = nn.ModuleList(blocks)
        self.proj_out = nn.Linear(channels, channels) if linear else nn.Conv2d(channels, channels, 1)

    def forward(self, x: Tensor, cond: Tensor) -> Tensor:
        """x (B, C, H, W), cond (B, L, D) -> (B, C, H, W)."""
        h = self.norm(with_gradient(x, self.norm))  # (B, C, H, W)
        tokens = rearrange(h if self.linear else self.proj_in(h), "b c h w -> b (h w) c")  # (B, T, C)
        tokens = self.proj_in(tokens.contiguous()) if self.linear else tokens.contiguous()  # see ops/compiled.py
        for block in self.transformer_blocks:
            tokens = block(tokens, cond)
        tokens = self.proj_out(tokens) if self.linear else tokens
        h = rearrange(tokens, "b (h w) c -> b c h w", h=x.shape[2])
        return x + (h if self.linear else self.proj_out(h))

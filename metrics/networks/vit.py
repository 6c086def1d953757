"""The vision transformer of CLIP, DINO and DINOv2 (Dosovitskiy et al. 2021, arXiv 2010.11929), and its preprocessing.

    h = [class, patches] + positions;   registers, in models that have some, go between class and patches
    h = h + g1 attn(norm1(h));   h = h + g2 mlp(norm2(h))      g: DINOv2's layer scale, 1 elsewhere
    out = norm(h)_class

Registers: Darcet et al. 2023 (arXiv 2309.16588). Where names of parameters differ, those of DINO are used.
"""

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from einops import rearrange
from torch import Tensor, nn

from ops import attention
from unet.text.encoder import ACTIVATIONS

LETTERS = {384: "S", 768: "B", 1024: "L", 1280: "H", 1408: "g", 1536: "g", 1664: "bigG"}  # by width


@dataclass(frozen=True)
class ViTConfig:
    """The shape of a vision transformer."""

    width: int  # D
    layers: int
    heads: int  # N; K = D / N
    patch: int  # side of a patch, pixels
    grid: int  # side of the table of positions, patches
    hidden: int  # width inside the MLPs
    activation: str = "gelu"  # "quick_gelu", or "swiglu": silu(a) b of two projections
    eps: float = 1e-6  # of the norms; CLIP's is 1e-5
    entrance: bool = False  # CLIP: a norm before the first block, and patches without a bias
    scaled: bool = False  # DINOv2: a factor for each channel of a block's two branches
    registers: int = 0

    @property
    def name(self) -> str:
        """A name such as ViT-L/14."""
        return f"ViT-{LETTERS.get(self.width, self.width)}/{self.patch}"


class Attention(nn.Module):
    """proj(softmax(q k^T / sqrt(K)) v)."""

    def __init__(self, width: int, heads: int):
        super().__init__()
        self.heads = heads
        self.qkv, self.proj = nn.Linear(width, 3 * width), nn.Linear(width, width)

    def forward(self, x: Tensor) -> Tensor:
        """x (B, T, D) -> (B, T, D)."""
        q, k, v = rearrange(self.qkv(x), "b t (three n k) -> three b n t k", three=3, n=self.heads)
        return self.proj(rearrange(attention(q, k, v), "b n t k -> b t (n k)"))


class Mlp(nn.Module):
    """fc2(act(fc1(x)))."""

    def __init__(self, width: int, hidden: int, activation: str):
        super().__init__()
        self.fc1, self.fc2 = nn.Linear(width, hidden), nn.Linear(hidden, width)
        self.act = ACTIVATIONS[activation]

    def forward(self, x: Tensor) -> Tensor:
        """x (B, T, D) -> (B, T, D)."""
        return self.fc2(self.act(self.fc1(x)))


class SwiGLU(nn.Module):
    """w3(silu(a) b) with a, b = w12(x) (Shazeer 2020, arXiv 2002.05202)."""

    def __init__(self, width: int, hidden: int):
        super().__init__()
        self.w12, self.w3 = nn.Linear(width, 2 * hidden), nn.Linear(hidden, width)

    def forward(self, x: Tensor) -> Tensor:
        """x (B, T, D) -> (B, T, D)."""
        a, b = self.w12(x).chunk(2, dim=-1)  # (B, T, hidden)
        return self.w3(F.silu(a) * b)


class LayerScale(nn.Module):
    """gamma x (Touvron et al. 2021, arXiv 2103.17239)."""

    def __init__(self, width: int):
        super().__init__()
        self.gamma = nn.Parameter(torch.ones(width))

    def forward(self, x: Tensor) -> Tensor:
        """x (B, T, D) -> (B, T, D)."""
        return self.gamma * x


class Block(nn.Module):
    """x = x + g1 attn(norm1(x));  x = x + g2 mlp(norm2(x))."""

    def __init__(self, c: ViTConfig):
        super().__init__()
        swiglu = c.activation == "swiglu"
        self.norm1, self.norm2 = nn.LayerNorm(c.width, c.eps), nn.LayerNorm(c.width, c.eps)
        self.attn = Attention(c.width, c.heads)
        self.mlp = SwiGLU(c.width, c.hidden) if swiglu else Mlp(c.width, c.hidden, c.activation)
        self.ls1, self.ls2 = (LayerScale(c.width) if c.scaled else nn.Identity() for _ in range(2))

    def forward(self, x: Tensor) -> Tensor:
        """x (B, T, D) -> (B, T, D)."""
        x = x + self.ls1(self.attn(self.norm1(x)))
        return x + self.ls2(self.mlp(self.norm2(x)))


class ViT(nn.Module):
    """out = norm(blocks([class, patches] + positions))_class."""

    def __init__(self, config: ViTConfig):
        super().__init__()
        self.config, c = config, config
        self.patches = nn.Conv2d(3, c.width, c.patch, stride=c.patch, bias=not c.entrance)
        self.cls_token = nn.Parameter(torch.zeros(1, 1, c.width))
        self.pos_embed = nn.Parameter(torch.zeros(1, 1 + c.grid**2, c.width))
        self.register_tokens = nn.Parameter(torch.zeros(1, c.registers, c.width)) if c.registers else None
        self.entrance = nn.LayerNorm(c.width, c.eps) if c.entrance else nn.Identity()
        self.blocks = nn.Sequential(*(Block(c) for _ in range(c.layers)))
        self.norm = nn.LayerNorm(c.width, c.eps)

    def positions(self, side: int) -> Tensor:
        """The table of positions (1, 1 + side^2, D) for side x side patches, resized if it is for another grid.

        As in the code of DINO and DINOv2, models with registers antialias, and others scale by (side + 0.1) / grid.
        """
        grid = self.config.grid
        if side == grid:
            return self.pos_embed
        table = rearrange(self.pos_embed[:, 1:], "b (h w) d -> b d h w", h=grid)
        if self.config.registers:
            table = F.interpolate(table, (side, side), mode="bicubic", antialias=True)
        else:
            table = F.interpolate(table, scale_factor=(side + 0.1) / grid, mode="bicubic")
        return torch.cat([self.pos_embed[:, :1], rearrange(table, "b d h w -> b (h w) d")], dim=1)

    def forward(self, x: Tensor) -> Tensor:
        """x (B, 3, S, S) from `prepare`, S a multiple of the patch -> (B, D)."""
        h = rearrange(self.patches(x), "b d h w -> b (h w) d")  # (B, T, D)
        h = torch.cat([self.cls_token.expand(len(x), -1, -1), h], dim=1)  # (B, 1 + T, D)
        h = h + self.positions(x.shape[-1] // self.config.patch)
        if self.register_tokens is not None:
            h = torch.cat([h[:, :1], self.register_tokens.expand(len(x), -1, -1), h[:, 1:]], dim=1)  # (B, 5 + T, D)
        return self.norm(self.blocks(self.entrance(h))[:, 0])


def prepare(
    x: Tensor, resize: int, crop: int, mean: tuple[float, float, float], std: tuple[float, float, float]
) -> Tensor:
    """Images (N, 3, S, S) in [-1, 1] -> (N, 3, crop, crop), (x - mean) / std of images in [0, 1].

    They are resized to `resize` pixels as Pillow does, bicubic, antialiased and clamped, and cropped at the centre.
    """
    x = F.interpolate(x, (resize, resize), mode="bicubic", antialias=True).clamp(-1, 1)
    edge = (resize - crop) // 2
    x = x[..., edge : edge + crop, edge : edge + crop]
    mean, std = (x.new_tensor(values)[:, None, None] for values in (mean, std))  # (3, 1, 1)
    return ((x + 1) / 2 - mean) / std

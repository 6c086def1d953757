"""The other sides that diffusers has no part in: the original's arithmetic, and a file read as it lies there."""

import tempfile
from collections.abc import Callable
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from bench.sides.ours import new_dit, new_sd

BF16 = torch.bfloat16


class Original(nn.Module):
    """The arithmetic of facebookresearch/DiT's block: our weights, stock layers, fused attention, in one dtype."""

    def __init__(self, block: nn.Module):
        super().__init__()
        self.block = block

    def forward(self, x: Tensor, c: Tensor) -> Tensor:
        """x (B, T, D), c (B, D) -> (B, T, D)."""
        block = self.block
        shift1, scale1, gate1, shift2, scale2, gate2 = block.adaLN_modulation(c).chunk(6, dim=1)
        h = block.norm1(x) * (1 + scale1.unsqueeze(1)) + shift1.unsqueeze(1)
        B, T, D = h.shape
        heads = block.attn.heads
        q, k, v = block.attn.qkv(h).reshape(B, T, 3, heads, D // heads).permute(2, 0, 3, 1, 4).unbind(0)
        mixed = F.scaled_dot_product_attention(q, k, v).transpose(1, 2).reshape(B, T, D)
        x = x + gate1.unsqueeze(1) * block.attn.proj(mixed)
        h = block.norm2(x) * (1 + scale2.unsqueeze(1)) + shift2.unsqueeze(1)
        return x + gate2.unsqueeze(1) * block.mlp(h)


def original(size: dict, device: str) -> Callable:
    """A forward of two samples."""
    model = new_dit(size).to(device, BF16).requires_grad_(False)
    model.blocks = nn.ModuleList(Original(block) for block in model.blocks)
    x, t = torch.randn(2, *model.latent_shape, device=device, dtype=BF16), torch.full((2,), 500, device=device)
    y = torch.tensor([1, 2], device=device)

    @torch.no_grad()
    def step() -> None:
        model(x, t, y)

    return step


def read(size: dict, device: str) -> Callable:
    """The checkpoint of a DiT."""
    return reading(new_dit(size).state_dict())


def read_sd(size: dict, device: str) -> Callable:
    """The numbers of a Stable Diffusion."""
    sd = new_sd(size)
    return reading([part.state_dict() for part in (sd.unet, sd.text, sd.vae)])


def reading(tensors: dict | list) -> Callable:
    """A file of them read through, block by block; as its peak the size of the file."""
    work = tempfile.TemporaryDirectory()
    path = Path(work.name) / "weights.pt"
    torch.save(tensors, path)

    def step() -> dict:
        with open(path, "rb") as file:
            while file.read(2**24):
                pass
        return {"peak": path.stat().st_size / 2**30, "file": work.name}

    return step

"""The text encoder of CLIP, whose states condition Stable Diffusion (Radford et al. 2021, sec. 2.4, arXiv 2103.00020).

    h_0 = token row + position row
    h   = h + attn(norm1(h));   h = h + mlp(norm2(h))      causal: position i reads positions 0 .. i
    out = final_norm(h after layers - skip of the layers)

Stable Diffusion 1.x reads the last layer of OpenAI's ViT-L/14, 2.x the penultimate one of OpenCLIP's ViT-H/14 (Cherti
et al. 2023, arXiv 2212.07143). That one has 24 layers, of which the last never runs; diffusers' files and the size here
leave it out. XL reads the penultimate layers of ViT-L/14 and ViT-bigG/14, both without the norm, and of the second one
pooled vector, P final_norm(h after all layers) at the end token (pair.py). There is no mask: padding is read like
any word.
"""

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from einops import rearrange
from torch import Tensor, nn

from ops import attention


@dataclass(frozen=True)
class TextConfig:
    """The shape of a text encoder. Raises ValueError for values that do not fit each other."""

    vocab_size: int  # rows of the token table
    width: int  # D
    layers: int
    heads: int  # N; K = D / N
    max_length: int = 77  # rows of the position table
    activation: str = "quick_gelu"  # OpenAI's; "gelu": OpenCLIP's
    skip: int = 0  # last layers that do not run: 1 is the penultimate layer, A1111's "clip skip 2"
    norm: bool = True  # whether the states have gone through final_norm
    projection: int = 0  # width of the pooled vector; 0: none

    def __post_init__(self):
        if self.width % self.heads:
            raise ValueError(f"width {self.width} is not a multiple of {self.heads} heads")
        if self.activation not in ACTIVATIONS:
            raise ValueError(f"activation must be one of {', '.join(ACTIVATIONS)}, found {self.activation!r}")
        if not 0 <= self.skip < self.layers:
            raise ValueError(f"skip must be 0 .. {self.layers - 1} of {self.layers} layers, found {self.skip}")


def quick_gelu(x: Tensor) -> Tensor:
    """x sigmoid(1.702 x), an approximation of gelu (Hendrycks and Gimpel 2016, section 2)."""
    return x * torch.sigmoid(1.702 * x)


ACTIVATIONS = {"quick_gelu": quick_gelu, "gelu": F.gelu}


class Attention(nn.Module):
    """to_out(softmax(q k^T / sqrt(K)) v) over `heads` heads, each position seeing itself and those before."""

    def __init__(self, width: int, heads: int):
        super().__init__()
        self.heads = heads
        self.to_q, self.to_k, self.to_v, self.to_out = (nn.Linear(width, width) for _ in range(4))

    def forward(self, x: Tensor) -> Tensor:
        """x (B, L, D) -> (B, L, D)."""
        projected = self.to_q(x), self.to_k(x), self.to_v(x)
        q, k, v = (rearrange(y, "b l (n k) -> b n l k", n=self.heads) for y in projected)  # (B, N, L, K)
        mixed = attention(q, k, v, causal=True)  # (B, N, L, K)
        return self.to_out(rearrange(mixed, "b n l k -> b l (n k)"))


class Mlp(nn.Module):
    """fc2(act(fc1(x))), four times as wide inside."""

    def __init__(self, width: int, activation: str):
        super().__init__()
        self.fc1 = nn.Linear(width, 4 * width)
        self.act = ACTIVATIONS[activation]
        self.fc2 = nn.Linear(4 * width, width)

    def forward(self, x: Tensor) -> Tensor:
        """x (B, L, D) -> (B, L, D)."""
        return self.fc2(self.act(self.fc1(x)))


class EncoderLayer(nn.Module):
    """x = x + attn(norm1(x));  x = x + mlp(norm2(x))."""

    def __init__(self, width: int, heads: int, activation: str):
        super().__init__()
        self.norm1 = nn.LayerNorm(width)
        self.attn = Attention(width, heads)
        self.norm2 = nn.LayerNorm(width)
        self.mlp = Mlp(width, activation)

    def forward(self, x: Tensor) -> Tensor:
        """x (B, L, D) -> (B, L, D)."""
        x = x + self.attn(self.norm1(x))  # (B, L, D)
        return x + self.mlp(self.norm2(x))


class TextEncoder(nn.Module):
    """out = final_norm(layers(token rows + position rows))."""

    def __init__(self, config: TextConfig):
        super().__init__()
        self.config = config
        self.token_embedding = nn.Embedding(config.vocab_size, config.width)
        self.position_embedding = nn.Embedding(config.max_length, config.width)
        self.layers = nn.ModuleList(
            EncoderLayer(config.width, config.heads, config.activation) for _ in range(config.layers)
        )
        self.final_norm = nn.LayerNorm(config.width)
        self.text_projection = nn.Linear(config.width, config.projection, bias=False) if config.projection else None
        if not self.token_embedding.weight.is_meta:
            initialise(self)

    def forward(self, tokens: Tensor) -> Tensor:
        """tokens (B, L) ids -> states (B, L, D). Raises ValueError if L exceeds the position table."""
        x = self.embed(tokens)
        for layer in self.layers[: len(self.layers) - self.config.skip]:
            x = layer(x)  # (B, L, D)
        return self.final_norm(x) if self.config.norm else x

    def embed(self, tokens: Tensor) -> Tensor:
        """h_0 (B, L, D) of tokens (B, L)."""
        length = tokens.shape[1]
        if length > self.config.max_length:
            raise ValueError(f"the text encoder has {self.config.max_length} positions, found {length} tokens in a row")
        positions = torch.arange(length, device=tokens.device)
        return self.token_embedding(tokens) + self.position_embedding(positions)


def initialise(encoder: TextEncoder) -> None:
    """Normal weights, with the deviations of OpenAI's code: tables 0.02 and 0.01, q, k, v 1/sqrt(D), fc1 1/sqrt(2D).

    What adds to the residual stream (to_out, fc2) has 1/sqrt(2 D layers): its variance does not grow with depth.
    """
    width, layers = encoder.config.width, encoder.config.layers
    nn.init.normal_(encoder.token_embedding.weight, std=0.02)
    nn.init.normal_(encoder.position_embedding.weight, std=0.01)
    residual = (2 * width * layers) ** -0.5
    deviations = {"to_out": residual, "fc1": (2 * width) ** -0.5, "fc2": residual}
    for name, layer in encoder.named_modules():
        if isinstance(layer, nn.Linear):
            nn.init.normal_(layer.weight, std=deviations.get(name.rpartition(".")[2], width**-0.5))
            if layer.bias is not None:
                nn.init.zeros_(layer.bias)

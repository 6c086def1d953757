"""The UNet of Stable Diffusion: predicts the noise (or v) in a latent, given the timestep and a text.

Rombach et al. 2022, "High-Resolution Image Synthesis with Latent Diffusion Models", arXiv 2112.10752; XL: Podell et al.
2023, arXiv 2307.01952. Every * keeps its features as a skip connection, and every + begins with the concatenation of
the features and the last skip that is left. In Stable Diffusion 1, 2 and their inpainting models:

    level   encoder                                          decoder, from below
            conv_in*                                         norm_out, silu, conv_out
      0     (res text)*   (res text)*   downsample*          +(res text)   +(res text)   +(res text)
      1     (res text)*   (res text)*   downsample*          +(res text)   +(res text)   +(res text)   upsample
      2     (res text)*   (res text)*   downsample*          +(res text)   +(res text)   +(res text)   upsample
      3     (res)*        (res)*                             +(res)        +(res)        +(res)        upsample
                                          mid:  res text res

`text` is a transformer of one block there. XL has three levels: none at level 0, two blocks at level 1, ten at level 2
and in the middle. It also reads one vector a text, beside the timestep: the pooled text and six sizes of the image.
"""

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ops import channels_last, doubled, normed, timestep_embedding
from unet.block import SpatialTransformer, TimeResBlock
from unet.row import SINUSOID, SIZE_NUMBERS, split_row
from unet.time import TimestepEmbedder


@dataclass(frozen=True)
class UNetConfig:
    """The shape of a UNet, by default that of Stable Diffusion 1. The tuples have one entry per level."""

    in_channels: int = 4  # channels of x; an inpainting model's 9: noisy latent 4, mask 1, latent of the masked image 4
    out_channels: int = 4  # channels of the latent
    channels: tuple[int, ...] = (320, 640, 1280, 1280)  # C; all levels but the last downsample by 2
    text: tuple[int, ...] = (1, 1, 1, 0)  # transformer blocks after a residual block; the middle: the last, at least 1
    heads: tuple[int, ...] = (8, 8, 8, 8)  # N; the last is the middle's too. The shapes in a file do not show it
    layers: int = 2  # residual blocks a level (one more in the decoder)
    text_width: int = 768  # D of the text states
    pooled: int = 0  # P of the pooled text that XL reads beside them, with the image's sizes; 0: neither
    linear: bool = False  # projections around a transformer: Linears instead of 1x1 convolutions
    upcast: bool = False  # attention in float32, for float16 weights
    groups: int = 32  # of every GroupNorm
    input_size: int = 64  # side of the latents of its training; any other works

    def __post_init__(self):
        if not len(self.channels) == len(self.text) == len(self.heads):
            raise ValueError(
                f"{len(self.channels)} levels of channels need as many entries of text and heads, "
                f"found {len(self.text)} and {len(self.heads)}"
            )
        for width, heads in zip(self.channels, self.heads):
            if width % heads or width % self.groups:
                raise ValueError(f"width {width} is not a multiple of {heads} heads and of {self.groups} groups")


def transformer(config: UNetConfig, level: int) -> SpatialTransformer:
    """The one after a residual block of a level, or with level -1 the middle's."""
    c = config
    widths = c.channels[level], c.text_width, c.heads[level]
    return SpatialTransformer(*widths, c.groups, c.linear, c.upcast, c.text[level] or 1)


class Level(nn.Module):
    """The residual blocks of one level and their transformers; widths: input channels of each block."""

    def __init__(self, config: UNetConfig, level: int, widths: list[int]):
        super().__init__()
        c, channels = config, config.channels[level]
        self.resnets = nn.ModuleList(TimeResBlock(width, channels, 4 * c.channels[0], c.groups) for width in widths)
        self.attentions = nn.ModuleList(transformer(c, level) for _ in widths if c.text[level])

    def row(self, j: int, x: Tensor, emb: Tensor, cond: Tensor) -> Tensor:
        """Residual block j and its transformer: x (B, widths[j], H, W) -> (B, C, H, W)."""
        x = self.resnets[j](x, emb)
        return self.attentions[j](x, cond) if self.attentions else x


class Down(Level):
    """Blocks at one size, then downsampling, a convolution of stride 2 (none on the last level)."""

    def __init__(self, config: UNetConfig, level: int):
        channels = config.channels[level]
        super().__init__(config, level, [config.channels[max(level - 1, 0)]] + [channels] * (config.layers - 1))
        last = level == len(config.channels) - 1
        self.downsample = None if last else nn.Conv2d(channels, channels, 3, stride=2, padding=1)

    def forward(self, x: Tensor, emb: Tensor, cond: Tensor) -> list[Tensor]:
        """x (B, C', H, W) -> skips, the last the output: (B, C, H, W) a block, (B, C, H/2, W/2) downsampled."""
        skips = []
        for j in range(len(self.resnets)):
            x = self.row(j, x, emb, cond)
            skips.append(x)
        return skips if self.downsample is None else [*skips, self.downsample(x)]


class Middle(nn.Module):
    """res text res, at the width and with the heads of the last level."""

    def __init__(self, config: UNetConfig):
        super().__init__()
        c, channels = config, config.channels[-1]
        self.resnets = nn.ModuleList(TimeResBlock(channels, channels, 4 * c.channels[0], c.groups) for _ in range(2))
        self.attentions = nn.ModuleList([transformer(c, -1)])

    def forward(self, x: Tensor, emb: Tensor, cond: Tensor) -> Tensor:
        """x (B, C, H, W) -> (B, C, H, W)."""
        x = self.attentions[0](self.resnets[0](x, emb), cond)
        return self.resnets[1](x, emb)


class Up(Level):
    """Blocks that each begin with a skip, then upsampling, nearest neighbour and a convolution (none at level 0)."""

    def __init__(self, config: UNetConfig, level: int, widths: list[int]):
        super().__init__(config, level, widths)
        channels = config.channels[level]
        self.upsample = nn.Conv2d(channels, channels, 3, padding=1) if level else None

    def forward(self, x: Tensor, skips: list[Tensor], emb: Tensor, cond: Tensor) -> Tensor:
        """x (B, C', H, W) and skips, one a block, read from the last -> (B, C, H, W), or (B, C, 2H, 2W) upsampled."""
        for j, skip in enumerate(reversed(skips)):
            x = self.row(j, torch.cat([x, skip], dim=1), emb, cond)
        return x if self.upsample is None else doubled(self.upsample, x)


class UNetEncoder(nn.Module):
    """mid(down(conv_in(x))), which a ControlNet copies. Each block reads the text states and

    emb = silu(mlp(sinusoid(t)))        XL: silu(mlp(sinusoid(t)) + mlp([pooled text, sinusoids of six sizes]))
    """

    def __init__(self, config: UNetConfig):
        super().__init__()
        c, levels = config, range(len(config.channels))
        self.config, self.factor = config, 2 ** levels[-1]
        emb = 4 * c.channels[0]
        self.time_embed = TimestepEmbedder(c.channels[0], emb)
        vector = c.pooled + SIZE_NUMBERS * SINUSOID
        first = nn.Linear(vector, emb) if c.pooled else None
        self.vector_embed = first and nn.Sequential(first, nn.SiLU(), nn.Linear(emb, emb))
        self.conv_in = nn.Conv2d(c.in_channels, c.channels[0], 3, padding=1)
        self.down = nn.ModuleList(Down(c, level) for level in levels)
        self.mid = Middle(c)

    def conditions(self, x: Tensor, t: Tensor, cond: Tensor) -> tuple[Tensor, Tensor]:
        """-> emb (B, E) and the text states (B, L, D). Raises ValueError for an x or cond that does not fit."""
        c, f = self.config, self.factor
        if x.dim() != 4 or x.shape[1] != c.in_channels or x.shape[2] % f or x.shape[3] % f:
            raise ValueError(f"x must be (B, {c.in_channels}, H, W), H and W multiples of {f}, found {tuple(x.shape)}")
        emb = self.time_embed(t, x.dtype)  # (B, E)
        states = cond
        if c.pooled:
            states, pooled, sizes = split_row(cond, c.text_width, c.pooled)
            sizes = timestep_embedding(sizes.flatten(), SINUSOID).reshape(len(pooled), -1)  # (B, 6 S)
            emb = emb + self.vector_embed(torch.cat([pooled, sizes], dim=1).to(x.dtype))
        if states.dim() != 3 or states.shape[0] != x.shape[0] or states.shape[2] != c.text_width:
            raise ValueError(f"cond must be text states ({len(x)}, L, {c.text_width}), found {tuple(states.shape)}")
        # each residual block of the original applies this SiLU anew, to the same emb
        return F.silu(emb), states.to(x.dtype) if c.pooled else states

    def encode(self, x: Tensor, emb: Tensor, states: Tensor, hint_embedding: Tensor | None = None) -> list[Tensor]:
        """The skips from the first to the last, then the middle (B, C, H/f, W/f).

        hint_embedding (B, C, H, W) is added to conv_in(x).
        """
        first = self.conv_in(channels_last(x))  # (B, C, H, W)
        features = [first if hint_embedding is None else first + hint_embedding]
        for level in self.down:
            features += level(features[-1], emb, states)
        return [*features, self.mid(features[-1], emb, states)]


class UNet(UNetEncoder):
    """out = up(mid(down(conv_in(x))), skips)."""

    def __init__(self, config: UNetConfig):
        super().__init__(config)
        c, levels = config, range(len(config.channels))
        self.up = nn.ModuleList(Up(c, level, widths) for level, widths in zip(levels[::-1], up_widths(c)))
        self.norm_out = nn.GroupNorm(c.groups, c.channels[0], eps=1e-5)
        self.conv_out = nn.Conv2d(c.channels[0], c.out_channels, 3, padding=1)
        initialise(self, self.conv_out)

    @property
    def latent_shape(self) -> tuple[int, int, int]:
        """(C, H, W) of the output; x of an inpainting model holds five channels more."""
        return self.config.out_channels, self.config.input_size, self.config.input_size

    def forward(self, x: Tensor, t: Tensor, cond: Tensor, residuals: list[Tensor] | None = None) -> Tensor:
        """x (B, C, H, W), t (B,) steps of the 1000-step chain, cond (B, L, D) text states, for XL rows (B, N) as
        `split_row` reads them -> (B, out, H, W).

        residuals: a ControlNet's, added to the skips from the first to the last, then to the middle.
        Raises ValueError for an x or cond of another shape than the model's, or another number of residuals.
        """
        emb, states = self.conditions(x, t, cond)
        *skips, x = self.encode(x, emb, states)
        if residuals is not None:
            if len(residuals) != len(skips) + 1:
                raise ValueError(f"expected {len(skips)} residuals and one for the middle, found {len(residuals)}")
            *skips, x = (features + residual for features, residual in zip([*skips, x], residuals))
        for level in self.up:
            rows = len(level.resnets)
            x = level(x, skips[-rows:], emb, states)
            skips = skips[:-rows]
        return self.conv_out(normed(self.norm_out, F.silu, x))  # (B, out, H, W)


def up_widths(config: UNetConfig) -> list[list[int]]:
    """Input channels of each block of the decoder, level by level from below: the block before's and its skip's."""
    last = len(config.channels) - 1
    skips = [config.channels[0]]
    for level, channels in enumerate(config.channels):
        skips += [channels] * (config.layers + (level < last))
    below, widths = config.channels[-1], []
    for channels in reversed(config.channels):
        before = [below] + [channels] * config.layers
        widths.append([width + skips.pop() for width in before])
        below = channels
    return widths


def initialise(model: UNetEncoder, *last: nn.Module) -> None:
    """The original's initialisation: torch's own, zeros at the end of each branch and in the last layers: output 0."""
    ends = [layer.conv2 for layer in model.modules() if isinstance(layer, TimeResBlock)]
    ends += [layer.proj_out for layer in model.modules() if isinstance(layer, SpatialTransformer)]
    for layer in (*ends, *last):
        nn.init.zeros_(layer.weight)
        nn.init.zeros_(layer.bias)

"""The autoencoder of Stable Diffusion; both backbones work on its latents (Rombach et al. 2022, sec. 3.1).

    encode: x (B, 3, H, W) in [-1, 1] -> mean, logvar of q(z|x), each (B, c, H/f, W/f)
    sample: z = mean + exp(logvar / 2) * noise
    decode: z -> x

The diffusion model sees z * scaling_factor. Stable Diffusion 1.x, 2.x and DiT have f = 8, c = 4, 83,653,863 parameters.
"""

from dataclasses import dataclass

import torch
from einops import rearrange
from torch import Tensor, nn
from torch.nn import functional as F

from ops import attention, channels_last, doubled


@dataclass
class VAEConfig:
    """The shape of a VAE and the scale of its latents."""

    in_channels: int = 3
    latent_channels: int = 4
    channels: tuple[int, ...] = (128, 256, 512, 512)  # one level each; all but the last downsample by 2
    layers: int = 2  # residual blocks a level (the decoder has one more)
    groups: int = 32  # of every GroupNorm
    scaling_factor: float = 0.18215  # 1 / std of the latents over the training images


# VAE-T is this package's own: 64 px -> 6 x 16 x 16. Training it sets the scaling factor, which is measured.
SIZES = {
    "VAE-SD": VAEConfig(),
    "VAE-T": VAEConfig(latent_channels=6, channels=(16, 48, 96), layers=1, groups=8, scaling_factor=1.0),
}


class ResBlock(nn.Module):
    """x + conv2(silu(norm2(conv1(silu(norm1(x)))))), the skip a 1x1 convolution where the width changes."""

    def __init__(self, channels: int, out: int, groups: int):
        super().__init__()
        self.norm1 = nn.GroupNorm(groups, channels, eps=1e-6)
        self.conv1 = nn.Conv2d(channels, out, 3, padding=1)
        self.norm2 = nn.GroupNorm(groups, out, eps=1e-6)
        self.conv2 = nn.Conv2d(out, out, 3, padding=1)
        self.shortcut = nn.Conv2d(channels, out, 1) if channels != out else nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        """x (B, C, H, W) -> (B, out, H, W)."""
        h = self.conv1(F.silu(self.norm1(x)))  # (B, out, H, W)
        return self.shortcut(x) + self.conv2(F.silu(self.norm2(h)))


class AttnBlock(nn.Module):
    """x + W_out softmax(q k^T / sqrt(C)) v over all positions, one head as wide as the features."""

    def __init__(self, channels: int, groups: int):
        super().__init__()
        self.norm = nn.GroupNorm(groups, channels, eps=1e-6)
        self.to_q, self.to_k, self.to_v, self.to_out = (nn.Linear(channels, channels) for _ in range(4))

    def forward(self, x: Tensor) -> Tensor:
        """x (B, C, H, W) -> (B, C, H, W)."""
        tokens = rearrange(self.norm(x), "b c h w -> b 1 (h w) c")  # one head
        mixed = attention(self.to_q(tokens), self.to_k(tokens), self.to_v(tokens))  # (B, 1, H W, C)
        return x + rearrange(self.to_out(mixed), "b 1 (h w) c -> b c h w", h=x.shape[2])


class Down(nn.Module):
    """Residual blocks at one size, then downsampling, a convolution of stride 2 (none on the last level)."""

    def __init__(self, channels: int, out: int, layers: int, groups: int, downsample: bool):
        super().__init__()
        self.res = nn.ModuleList(ResBlock(channels if j == 0 else out, out, groups) for j in range(layers))
        self.downsample = nn.Conv2d(out, out, 3, stride=2) if downsample else None

    def forward(self, x: Tensor) -> Tensor:
        """x (B, C, H, W) -> (B, out, H, W), or (B, out, H/2, W/2) downsampled."""
        for block in self.res:
            x = block(x)
        # the original pads right and below only, and the weights expect it
        return x if self.downsample is None else self.downsample(F.pad(x, (0, 1, 0, 1)))


class Up(nn.Module):
    """Residual blocks at one size, then upsampling, nearest neighbour and a convolution (none on the last level)."""

    def __init__(self, channels: int, out: int, layers: int, groups: int, upsample: bool):
        super().__init__()
        self.res = nn.ModuleList(ResBlock(channels if j == 0 else out, out, groups) for j in range(layers))
        self.upsample = nn.Conv2d(out, out, 3, padding=1) if upsample else None

    def forward(self, x: Tensor) -> Tensor:
        """x (B, C, H, W) -> (B, out, H, W), or (B, out, 2H, 2W) upsampled."""
        for block in self.res:
            x = block(x)
        return x if self.upsample is None else doubled(self.upsample, x)


def middle(channels: int, groups: int) -> nn.Sequential:
    """Residual block, attention, residual block: (B, C, H, W) -> (B, C, H, W)."""
    return nn.Sequential(
        ResBlock(channels, channels, groups), AttnBlock(channels, groups), ResBlock(channels, channels, groups)
    )


class Encoder(nn.Module):
    """x (B, 3, H, W) -> (B, 2c, H/f, W/f): mean and log-variance stacked."""

    def __init__(self, config: VAEConfig):
        super().__init__()
        widths, last = config.channels, len(config.channels) - 1
        self.conv_in = nn.Conv2d(config.in_channels, widths[0], 3, padding=1)
        self.down = nn.ModuleList(
            Down(widths[max(i - 1, 0)], widths[i], config.layers, config.groups, i < last) for i in range(last + 1)
        )
        self.mid = middle(widths[-1], config.groups)
        self.norm_out = nn.GroupNorm(config.groups, widths[-1], eps=1e-6)
        self.conv_out = nn.Conv2d(widths[-1], 2 * config.latent_channels, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        """x (B, 3, H, W) -> (B, 2c, H/f, W/f)."""
        x = self.conv_in(x)  # (B, widths[0], H, W)
        for level in self.down:
            x = level(x)  # (B, widths[i], H / 2^i, W / 2^i)
        return self.conv_out(F.silu(self.norm_out(self.mid(x))))


class Decoder(nn.Module):
    """z (B, c, H/f, W/f) -> (B, 3, H, W); `up` in order of execution, from the widest level to the narrowest."""

    def __init__(self, config: VAEConfig):
        super().__init__()
        widths, last = config.channels[::-1], len(config.channels) - 1
        self.conv_in = nn.Conv2d(config.latent_channels, widths[0], 3, padding=1)
        self.mid = middle(widths[0], config.groups)
        self.up = nn.ModuleList(
            Up(widths[max(i - 1, 0)], widths[i], config.layers + 1, config.groups, i < last) for i in range(last + 1)
        )
        self.norm_out = nn.GroupNorm(config.groups, widths[-1], eps=1e-6)
        self.conv_out = nn.Conv2d(widths[-1], config.in_channels, 3, padding=1)

    def forward(self, z: Tensor) -> Tensor:
        """z (B, c, H/f, W/f) -> (B, 3, H, W)."""
        x = self.mid(self.conv_in(z))  # (B, widths[0], H/f, W/f)
        for level in self.up:
            x = level(x)  # (B, widths[i], 2^i H/f, 2^i W/f)
        return self.conv_out(F.silu(self.norm_out(x)))


class VAE(nn.Module):
    """encode, sample, decode; `factor` is the side of an image divided by the side of its latent."""

    def __init__(self, config: VAEConfig):
        super().__init__()
        self.config, self.factor = config, 2 ** (len(config.channels) - 1)
        self.encoder, self.decoder = Encoder(config), Decoder(config)
        self.quant_conv = nn.Conv2d(2 * config.latent_channels, 2 * config.latent_channels, 1)
        self.post_quant_conv = nn.Conv2d(config.latent_channels, config.latent_channels, 1)

    def encode(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """x (B, 3, H, W) in [-1, 1] -> mean, logvar (B, c, H/f, W/f). ValueError if f does not divide H and W."""
        if x.shape[2] % self.factor or x.shape[3] % self.factor:
            raise ValueError(f"image sides {tuple(x.shape[2:])} are not multiples of {self.factor}")
        mean, logvar = self.quant_conv(self.encoder(channels_last(x))).chunk(2, dim=1)
        return mean, logvar.clamp(-30, 20)

    @staticmethod
    def sample(mean: Tensor, logvar: Tensor, noise: Tensor) -> Tensor:
        """z = mean + exp(logvar / 2) * noise, all (B, c, h, w)."""
        return mean + torch.exp(0.5 * logvar) * noise

    def decode(self, z: Tensor) -> Tensor:
        """z (B, c, h, w) unscaled -> (B, 3, f h, f w), about [-1, 1]."""
        return self.decoder(self.post_quant_conv(channels_last(z)))

    @torch.no_grad()
    def images(self, latents: Tensor, batch: int = 16) -> Tensor:
        """Scaled latents (N, c, h, w), a diffusion model's samples -> images (N, 3, f h, f w), about [-1, 1]."""
        latents = latents.to(self.quant_conv.weight.dtype)
        return torch.cat([self.decode_tiled(z / self.config.scaling_factor) for z in latents.split(batch)])

    def decode_tiled(self, z: Tensor, tile: int = 64, overlap: int = 16) -> Tensor:
        """decode(z) in tiles of `tile` latents a side, blended linearly over `overlap`, in the memory of one tile."""
        if max(z.shape[2:]) <= tile:
            return self.decode(z)
        total = z.new_zeros(z.shape[0], self.config.in_channels, z.shape[2] * self.factor, z.shape[3] * self.factor)
        weight = z.new_zeros(1, 1, *total.shape[2:])
        for top in starts(z.shape[2], tile, overlap):
            for left in starts(z.shape[3], tile, overlap):
                patch = self.decode(z[:, :, top : top + tile, left : left + tile])
                vertical, horizontal = (ramp(side, overlap * self.factor, patch) for side in patch.shape[2:])
                fade = vertical[:, None] * horizontal
                rows = slice(top * self.factor, top * self.factor + patch.shape[2])
                columns = slice(left * self.factor, left * self.factor + patch.shape[3])
                total[:, :, rows, columns] += patch * fade
                weight[:, :, rows, columns] += fade
        return total / weight


def starts(length: int, tile: int, overlap: int) -> list[int]:
    """First positions of tiles that cover 0..length, each sharing at least `overlap` with the one before."""
    return [*range(0, max(length - tile, 0), tile - overlap), max(length - tile, 0)]


def ramp(length: int, overlap: int, like: Tensor) -> Tensor:
    """Weights (length,) that rise from the edges over `overlap` positions and are 1 between; never 0."""
    distance = torch.arange(1, length + 1, device=like.device, dtype=like.dtype)
    return torch.minimum(distance, distance.flip(0)).clamp(max=max(overlap, 1)) / max(overlap, 1)

"""A UNet that reads a mask: its input is the noisy latent, the mask, and the latent of the photograph without it.

    out = unet([x, m, z_masked], t, states)          z_masked = scale * encode(photograph * (1 - m)), m = 1: to be drawn

The order, the target (eps of the latent's channels alone) and the grey of the masked pixels are those of Stable
Diffusion's inpainting models (Rombach et al. 2022, arXiv 2112.10752, sec. 4.5, and the released configs). Any other
UNet reads a mask with more input channels, whose weights start at 0: the same output until they train.
"""

from dataclasses import replace

import torch
from torch import Tensor
from torch.nn import functional as F

from ops.inputs import widened, with_hint
from unet.conditioned import TextConditioned
from unet.vae import VAE


class MaskedText(TextConditioned):
    """out = unet([x, hint], t, text(tokens)), hint = [m, z_masked]: a Stable Diffusion for inpainting."""

    def forward(self, x: Tensor, t: Tensor, cond: Tensor, hint: Tensor | None = None) -> Tensor:
        """x (B, C, H, W), t (B,), cond (B, L) or (B, L, D), hint (b, 1 + C, H, W) -> (B, C, H, W).

        Guidance stacks a batch of b samples, B = k b: each part has the same hints. ValueError without a hint.
        """
        return super().forward(with_hint(x, hint), t, cond)


def take_mask(model: TextConditioned) -> MaskedText:
    """Make the model one that reads a mask, in place; its first layer is widened unless it is one for inpainting."""
    c = model.unet.config
    if c.in_channels == c.out_channels:
        inputs = 2 * c.out_channels + 1
        model.unet.conv_in, model.unet.config = widened(model.unet.conv_in, inputs), replace(c, in_channels=inputs)
    model.__class__ = MaskedText
    return model


def touched(mask: Tensor, shape: tuple[int, int]) -> Tensor:
    """A mask (B, 1, S, S) of 0 and 1 at another size (h, w): 1 in each cell that it touches.

    The published pipelines take one pixel of a cell's 64, and lose a scratch. Of masks of whole cells it is the same.
    """
    return F.adaptive_max_pool2d(mask, shape)


@torch.no_grad()
def hint_of(vae: VAE, pixels: Tensor, mask: Tensor, shape: tuple[int, int]) -> Tensor:
    """[m, z_masked] (B, 1 + C, h, w) of images (B, 3, S, S) in [-1, 1] and their masks (B, 1, S, S) of 0 and 1."""
    z_masked = vae.config.scaling_factor * vae.encode(pixels * (1 - mask))[0].float()
    return torch.cat([touched(mask, shape), z_masked], dim=1)

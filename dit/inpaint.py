"""A DiT that reads a mask: its patches are of the noisy latent, the mask, and the latent of the photograph without it.

    out = DiT([x, m, z_masked], t, y)          z_masked = scale * encode(photograph * (1 - m)), m = 1: to be drawn

As Stable Diffusion's inpainting models do (unet/inpaint.py). The weights of the further channels start at 0: the same
output until they train. The size of a latent and of the output stay.
"""

from torch import Tensor

from dit.model import DiT
from ops.inputs import widened, with_hint


class MaskedDiT(DiT):
    """out = DiT([x, hint], t, y), hint = [m, z_masked]."""

    def forward(self, x: Tensor, t: Tensor, y: Tensor, hint: Tensor | None = None) -> Tensor:
        """x (B, C, H, W), t (B,), y (B,), hint (b, 1 + C, H, W) -> (B, C or 2C, H, W).

        Guidance stacks a batch of b samples, B = k b: each part has the same hints. Raises ValueError for an x of
        another shape, and without a hint.
        """
        if x.shape[1:] != self.latent_shape:
            raise ValueError(f"x must be {(len(x), *self.latent_shape)}, found {tuple(x.shape)}")
        c = self.t_embedder(t, x.dtype) + self.y_embedder(y)  # (B, D)
        x = self.x_embedder(with_hint(x, hint)) + self.pos_embed  # (B, T, D)
        for block in self.blocks:
            x = block(x, c)  # (B, T, D)
        return self.unpatchify(x, c)


def take_mask(model: DiT) -> MaskedDiT:
    """Make the DiT one that reads a mask, in place."""
    model.x_embedder.proj = widened(model.x_embedder.proj, 2 * model.config.in_channels + 1)
    model.__class__ = MaskedDiT
    return model

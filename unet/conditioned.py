"""UNet and text encoder as one model, so that both can be fine-tuned, averaged and saved together."""

from torch import Tensor, nn

from unet.model import UNet
from unet.text.encoder import TextEncoder
from unet.text.pair import TextPair, in_chunks


class TextConditioned(nn.Module):
    """out = unet(x, t, text(tokens)), or unet(x, t, states) with text states that were encoded before.

    Raises ValueError if the UNet reads text states of another width than the text encoder's.
    """

    def __init__(self, unet: UNet, text: TextEncoder | TextPair):
        super().__init__()
        wanted, found = unet.config.text_width, text.config.width
        if wanted != found:
            raise ValueError(f"the UNet reads text states of width {wanted}, the text encoder's have {found}")
        wanted, found = unet.config.pooled, text.config.projection if isinstance(text, TextPair) else 0
        if wanted != found:
            raise ValueError(f"the UNet reads a pooled text of width {wanted}, the text encoder's has {found}")
        self.unet, self.text = unet, text

    @property
    def latent_shape(self) -> tuple[int, int, int]:
        """(C, H, W) of the UNet's output."""
        return self.unet.latent_shape

    def forward(self, x: Tensor, t: Tensor, cond: Tensor) -> Tensor:
        """x (B, C, H, W), t (B,), cond (B, n L) token ids of n chunks, or states as the UNet reads them."""
        return self.unet(x, t, cond if cond.is_floating_point() else in_chunks(self.text, cond))

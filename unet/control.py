"""ControlNet: a trained copy of the UNet's encoder reads an image too and adds to the skips of the frozen UNet.

Zhang, Rao and Agrawala 2023, "Adding Conditional Control to Text-to-Image Diffusion Models", arXiv 2302.05543, eq. 2:

    y = F(x; theta) + Z2(F(x + Z1(hint); theta_c))        theta_c = theta and Z1 = Z2 = 0 at the start

F is the encoder with all of its skips, and the middle. Z1 is a small convolutional network whose end is zero,
Z2 a zero 1x1 convolution for each skip and one for the middle. theta_c, Z1 and Z2 train, theta stays: a new ControlNet
changes nothing, and without it the UNet is as before. For Stable Diffusion 1 that is 361,279,120
numbers, of them 1,086,480 in Z1 and 11,479,680 in Z2.
"""

from collections.abc import Sequence
from copy import deepcopy
from dataclasses import asdict, dataclass

import torch.nn.functional as F
from torch import Tensor, nn

from unet.conditioned import TextConditioned
from unet.model import UNet, UNetConfig, UNetEncoder, initialise
from unet.text.encoder import TextEncoder
from unet.text.pair import in_chunks

WIDTHS = (16, 32, 96, 256)  # of the published ControlNets, whose hint is 8 times as large as the latent


@dataclass(frozen=True)
class ControlConfig(UNetConfig):
    """The shape of the controlled UNet, by default that of Stable Diffusion 1, and of the hint's embedder."""

    hint_channels: int = 3  # 1 for a mask
    hint_widths: tuple[int, ...] = WIDTHS  # downsampling by 2 at each but the first, down to the latent's side

    def __post_init__(self):
        super().__post_init__()
        if not self.hint_widths:
            raise ValueError("hint_widths needs at least one width, found none")


class HintEmbedder(nn.Module):
    """Z1 = conv_out(silu(blocks(silu(conv_in(hint))))): two 3x3 convolutions a downsampling, conv_out 0."""

    def __init__(self, config: ControlConfig):
        super().__init__()
        widths = config.hint_widths
        self.conv_in = nn.Conv2d(config.hint_channels, widths[0], 3, padding=1)
        self.blocks = nn.ModuleList(
            nn.Conv2d(width, out, 3, stride=stride, padding=1)
            for width, wider in zip(widths, widths[1:])
            for out, stride in ((width, 1), (wider, 2))
        )
        self.conv_out = nn.Conv2d(widths[-1], config.channels[0], 3, padding=1)

    def forward(self, hint: Tensor) -> Tensor:
        """hint (B, hint_channels, 2^h H, 2^h W) -> (B, C, H, W), h the number of downsamplings."""
        h = F.silu(self.conv_in(hint))
        for convolution in self.blocks:
            h = F.silu(convolution(h))
        return self.conv_out(h)


class ControlNet(UNetEncoder):
    """residuals = strength * zero(encode(x, t, cond, hint_embedding)): one for each skip, the last for the middle."""

    def __init__(self, config: ControlConfig):
        super().__init__(config)
        self.hint = HintEmbedder(config)
        self.hint_factor = 2 ** (len(config.hint_widths) - 1)
        widths = [self.conv_in.out_channels]
        for level in self.down:
            channels = level.resnets[-1].conv2.out_channels
            widths += [channels] * (len(level.resnets) + (level.downsample is not None))
        self.zero = nn.ModuleList(nn.Conv2d(width, width, 1) for width in widths)
        self.zero_mid = nn.Conv2d(widths[-1], widths[-1], 1)
        initialise(self, self.hint.conv_out, *self.zero, self.zero_mid)

    @classmethod
    def of(cls, unet: UNet, hint_channels: int = 3, factor: int = 8) -> "ControlNet":
        """A new ControlNet for this UNet, its encoder a copy that trains; on the same device, in the same dtype.

        factor: side of the hint over that of the latent, which is the autoencoder's: 8, or 4 for VAE-T. Raises
        ValueError for one that is not 1, 2, 4 or 8.
        """
        widths = WIDTHS[: factor.bit_length()]
        if factor != 2 ** (len(widths) - 1):
            raise ValueError(f"factor must be 1, 2, 4 or 8 (other hint_widths by a ControlConfig), found {factor}")
        control = cls(ControlConfig(**asdict(unet.config), hint_channels=hint_channels, hint_widths=widths))
        control.to(unet.conv_in.weight)
        for name in ("time_embed", "conv_in", "down", "mid", *(["vector_embed"] if unet.config.pooled else [])):
            setattr(control, name, deepcopy(getattr(unet, name)).requires_grad_(True))
        return control

    def forward(self, x: Tensor, t: Tensor, cond: Tensor, hint: Tensor, strength: float = 1.0) -> list[Tensor]:
        """x, t and cond as for the UNet, hint (B, hint_channels, f H, f W) in [0, 1] -> `residuals` of UNet.forward.

        strength: of the control, 1 as trained. Raises ValueError for an x, cond or hint of another shape.
        """
        f = self.hint_factor
        expected = (len(x), self.config.hint_channels, f * x.shape[-2], f * x.shape[-1])
        if hint.shape != expected:
            raise ValueError(f"hint must be {expected}, {f} times as large as x, found {tuple(hint.shape)}")
        features = self.encode(x, *self.conditions(x, t, cond), self.hint(hint))
        return [strength * zero(feature) for zero, feature in zip([*self.zero, self.zero_mid], features)]


class ControlNets(nn.Module):
    """residuals = sum_i s_i control_i(x, t, cond, hint_i): several ControlNets beside one UNet, or one with a strength.

    The hints lie behind one another, on channels. strengths: s_i, 1 as trained.
    """

    def __init__(self, controls: Sequence[ControlNet], strengths: Sequence[float]):
        super().__init__()
        self.controls, self.strengths = nn.ModuleList(controls), tuple(strengths)

    def forward(self, x: Tensor, t: Tensor, cond: Tensor, hints: Tensor, strength: float = 1.0) -> list[Tensor]:
        """hints (B, sum of hint_channels, f H, f W), the rest as for one -> `residuals` of UNet.forward."""
        parts = hints.split([control.config.hint_channels for control in self.controls], dim=1)
        each = [
            control(x, t, cond, hint, strength * s) for control, hint, s in zip(self.controls, parts, self.strengths)
        ]
        return [sum(residuals) for residuals in zip(*each)]


class ControlledText(TextConditioned):
    """out = unet(x, t, states, control(x, t, states, hint)), states = text(tokens); without a hint unet(x, t, states).

    Raises ValueError if a ControlNet was made for another UNet than this one.
    """

    def __init__(self, unet: UNet, text: TextEncoder, control: ControlNet | ControlNets):
        super().__init__(unet, text)
        for one in control.controls if isinstance(control, ControlNets) else [control]:
            for field in ("text_width", "pooled", "text", "in_channels", "channels", "layers"):
                ours, theirs = getattr(unet.config, field), getattr(one.config, field)
                if ours != theirs:
                    raise ValueError(
                        f"the ControlNet belongs to another UNet: its {field} is {theirs}, this UNet's {ours}"
                    )
        self.control = control

    def forward(self, x: Tensor, t: Tensor, cond: Tensor, hint: Tensor | None = None, strength: float = 1.0) -> Tensor:
        """x (B, C, H, W), t (B,), cond (B, L) or (B, L, D), hint (b, hint_channels, f H, f W) -> (B, C, H, W).

        Guidance stacks a batch of b samples, B = k b: each part has the same hints.
        """
        if hint is None:
            return super().forward(x, t, cond)
        states = cond if cond.is_floating_point() else in_chunks(self.text, cond)
        hint = hint.repeat(len(x) // len(hint) or 1, 1, 1, 1)  # (B, ...)
        return self.unet(x, t, states, self.control(x, t, states, hint, strength))

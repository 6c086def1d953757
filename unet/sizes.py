"""The shapes of the published UNets and text encoders, and of this package's own."""

from dataclasses import replace

from unet.model import UNetConfig
from unet.text.encoder import TextConfig

_SD2 = dict(heads=(5, 10, 20, 20), text_width=1024, linear=True, upcast=True)  # every head is 64 wide
XL = UNetConfig(
    channels=(320, 640, 1280),
    text=(0, 2, 10),
    heads=(5, 10, 20),
    text_width=768 + 1280,  # of its two text encoders
    pooled=1280,
    linear=True,
    input_size=128,
)
UNETS = {
    "SD-1": UNetConfig(),
    "SD-2": UNetConfig(**_SD2),  # 2.0-base and 2.1-base
    "SD-2-v": UNetConfig(**_SD2, input_size=96),  # 2.0 and 2.1, which predict v at 768 pixels
    "SD-inpaint": UNetConfig(in_channels=9),
    "SD-2-inpaint": UNetConfig(**_SD2, in_channels=9),
    "SDXL": XL,
    "SDXL-inpaint": replace(XL, in_channels=9),
    # this package's own, for the latents of VAE-T; heads 32 wide
    "UNet-T": UNetConfig(
        in_channels=6,
        out_channels=6,
        channels=(64, 96, 128),
        text=(1, 1, 1),
        heads=(2, 3, 4),
        layers=1,
        text_width=128,
        linear=True,
        groups=8,
        input_size=16,
    ),
}
TEXT_ENCODERS = {
    "CLIP-L": TextConfig(49408, width=768, layers=12, heads=12),  # Stable Diffusion 1.x
    "OpenCLIP-H": TextConfig(49408, width=1024, layers=23, heads=16, activation="gelu"),  # Stable Diffusion 2.x
    # Stable Diffusion XL's two
    "CLIP-L-XL": TextConfig(49408, width=768, layers=12, heads=12, skip=1, norm=False),
    "OpenCLIP-bigG": TextConfig(
        49408, width=1280, layers=32, heads=20, activation="gelu", skip=1, norm=False, projection=1280
    ),
    "Text-T": TextConfig(1024, width=128, layers=4, heads=4),  # this package's own, with a vocabulary of its own
}

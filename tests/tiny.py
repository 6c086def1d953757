"""Small random models that a whole run takes a second or two on: images of 16 pixels, latents of 4x4."""

from pathlib import Path

import torch

import weights
from dit import DiT, DiTConfig
from unet import VAE, TextConfig, TextEncoder, Tokenizer, UNet, UNetConfig, VAEConfig


def write_dit(folder: Path):
    """vae.safetensors and dit.safetensors, whose classes are states of two products; random but not zero anywhere."""
    torch.manual_seed(0)
    vae = VAE(VAEConfig(latent_channels=4, channels=(8, 8, 8), layers=1, groups=4, scaling_factor=1.0))
    classes = ["pill/good", "pill/crack", "pill/hole", "tile/good", "tile/crack"]
    model = DiT(DiTConfig(depth=2, width=24, heads=2, patch=2, input_size=4, num_classes=len(classes)))
    for parameter in model.parameters():  # the zero initialisation would leave most methods without a gradient
        if parameter.requires_grad:
            torch.nn.init.normal_(parameter, std=0.1)
    weights.save_model(vae, folder / "vae.safetensors")
    weights.save_model(model, folder / "dit.safetensors", card={"classes": classes})


def write_sd(folder: Path):
    """A diffusers folder of a whole Stable Diffusion, random but not zero anywhere, its words those of the captions."""
    torch.manual_seed(0)
    tokenizer = Tokenizer.train(["a photo of a flawless pill", "a photo of a hazelnut with a hole"] * 5, 560, length=16)
    text = TextEncoder(TextConfig(len(tokenizer), width=16, layers=2, heads=2, max_length=16))
    unet = UNet(
        UNetConfig(channels=(8, 16), text=(True, False), heads=(2, 2), layers=1, text_width=16, groups=2, input_size=4)
    )
    vae = VAE(VAEConfig(latent_channels=4, channels=(8, 8, 8), layers=1, groups=4, scaling_factor=1.0))
    for parameter in unet.parameters():
        torch.nn.init.normal_(parameter, std=0.1)
    whole = weights.StableDiffusion(unet, text, tokenizer, vae, weights.sd_schedule())
    weights.save_sd(whole, folder, "sd-diffusers")

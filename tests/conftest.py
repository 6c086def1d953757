"""Small pretrained models that a whole run can be tested on: 16 px images, 4x4 latents."""

import os

# pytest runs one process a core: more threads, here or in a script that a test starts, would only wait for each other
if "PYTEST_XDIST_WORKER" in os.environ:
    os.environ["OMP_NUM_THREADS"] = "1"

import pytest
import torch

import weights
from dit import DiT, DiTConfig
from unet import VAE, TextConfig, TextEncoder, Tokenizer, UNet, UNetConfig, VAEConfig


@pytest.fixture(scope="session")
def tiny(tmp_path_factory):
    """A folder with vae.safetensors and dit.safetensors (classes of two products); random but not zero anywhere."""
    folder = tmp_path_factory.mktemp("tiny")
    torch.manual_seed(0)
    vae = VAE(VAEConfig(latent_channels=4, channels=(8, 8, 8), layers=1, groups=4, scaling_factor=1.0))
    classes = ["pill/good", "pill/crack", "pill/hole", "tile/good", "tile/crack"]
    model = DiT(DiTConfig(depth=2, width=24, heads=2, patch=2, input_size=4, num_classes=len(classes)))
    for parameter in model.parameters():  # the zero initialisation would leave most methods without a gradient
        if parameter.requires_grad:
            torch.nn.init.normal_(parameter, std=0.1)
    weights.save_model(vae, folder / "vae.safetensors")
    weights.save_model(model, folder / "dit.safetensors", card={"classes": classes})
    return folder


@pytest.fixture(scope="session")
def tiny_sd(tmp_path_factory):
    """A diffusers folder of a whole Stable Diffusion, random but not zero anywhere, its words those of the captions."""
    folder = tmp_path_factory.mktemp("tiny-sd")
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
    return folder

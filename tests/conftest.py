"""Small pretrained models that a whole run can be tested on: 16 px images, 4x4 latents."""
import pytest
import torch

import weights
from dit import DiT, DiTConfig
from unet import VAE, VAEConfig


@pytest.fixture(scope="session")
def tiny(tmp_path_factory):
    """A folder with vae.safetensors and dit.safetensors (classes of two products); random but not zero anywhere."""
    folder = tmp_path_factory.mktemp("tiny")
    torch.manual_seed(0)
    vae = VAE(VAEConfig(latent_channels=4, channels=(8, 8, 8), layers=1, groups=4, scaling_factor=1.0))
    classes = ["pill/good", "pill/crack", "pill/hole", "tile/good", "tile/crack"]
    model = DiT(DiTConfig(depth=2, width=24, heads=2, patch=2, input_size=4, num_classes=len(classes)))
    for parameter in model.parameters():   # the zero initialisation would leave most methods without a gradient
        if parameter.requires_grad:
            torch.nn.init.normal_(parameter, std=0.1)
    weights.save_model(vae, folder / "vae.safetensors")
    weights.save_model(model, folder / "dit.safetensors", card={"classes": classes})
    return folder

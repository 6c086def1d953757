"""Two tiny models with random weights everywhere, because fresh ones are full of zeros that hide mistakes."""

import pytest
import torch

from dit import DiT, DiTConfig
from unet import VAE, VAEConfig


def randomised(model, seed):
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if name != "pos_embed":
                parameter.copy_(0.05 * torch.randn(parameter.shape, generator=generator))
    return model.eval()


@pytest.fixture
def tiny_dit():
    return randomised(DiT(DiTConfig(depth=2, width=48, heads=4, patch=2, input_size=8, num_classes=10)), 0)


@pytest.fixture
def tiny_vae():
    return randomised(VAE(VAEConfig(channels=(16, 32, 32), layers=1, groups=8)), 1)

"""What is looked at while a model trains."""

import torch

from recipes.evaluation import by_column, reconstruct
from unet import VAE, VAEConfig


def test_a_reconstruction_is_the_image_encoded_and_decoded_whatever_the_scale():
    torch.manual_seed(0)
    vae = VAE(VAEConfig(latent_channels=2, channels=(8, 16), layers=1, groups=4, scaling_factor=0.25)).eval()
    x = torch.rand(18, 3, 8, 8) * 2 - 1
    with torch.no_grad():
        expected = vae.decode(vae.encode(x)[0]).clamp(-1, 1)
    torch.testing.assert_close(reconstruct(vae, x), expected, atol=1e-5, rtol=0)


def test_samples_stand_under_their_columns():
    assert by_column(["a", "b"], [1, 2, 3, 4]) == {"a": [1, 2], "b": [3, 4]}

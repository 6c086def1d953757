"""The autoencoder computes what diffusers' AutoencoderKL computes, with the same random weights."""

import pytest
import torch

import weights

diffusers = pytest.importorskip("diffusers")


@pytest.fixture(scope="module")
def both(tmp_path_factory):
    """(theirs, ours), ours read from the folder that theirs wrote."""
    torch.manual_seed(0)
    theirs = (
        diffusers.AutoencoderKL(
            in_channels=3,
            out_channels=3,
            down_block_types=["DownEncoderBlock2D"] * 4,
            up_block_types=["UpDecoderBlock2D"] * 4,
            block_out_channels=(16, 32, 32, 32),
            layers_per_block=2,
            latent_channels=4,
            norm_num_groups=8,
            sample_size=32,
        )
        .eval()
        .requires_grad_(False)
    )
    for parameter in theirs.parameters():  # norms start at exactly 1 and 0, which would hide a swap
        parameter += 0.02 * torch.randn(parameter.shape)
    folder = tmp_path_factory.mktemp("vae")
    theirs.save_pretrained(folder)
    return theirs, weights.load(folder, expect="vae").requires_grad_(False)


@pytest.mark.parametrize("height, width", [(32, 32), (24, 40)])
def test_encoding(both, height, width):
    theirs, ours = both
    x = torch.rand(2, 3, height, width, generator=torch.Generator().manual_seed(1)) * 2 - 1
    expected, (mean, logvar) = theirs.encode(x).latent_dist, ours.encode(x)
    assert mean.std() > 0.01
    assert (mean - expected.mean).abs().max() < 2e-5 and (logvar - expected.logvar).abs().max() < 2e-5


@pytest.mark.parametrize("height, width", [(4, 4), (3, 5)])
def test_decoding(both, height, width):
    theirs, ours = both
    z = torch.randn(2, 4, height, width, generator=torch.Generator().manual_seed(2))
    out = ours.decode(z)
    assert out.std() > 0.01 and (out - theirs.decode(z).sample).abs().max() < 2e-5


def test_the_scaling_factor(both):
    assert both[1].config.scaling_factor == both[0].config.scaling_factor == 0.18215

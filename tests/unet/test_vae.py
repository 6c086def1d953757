"""The autoencoder: its size, shapes and limits, and decoding in tiles."""

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from unet.vae import SIZES, VAE, VAEConfig, ramp, starts

TINY = VAEConfig(latent_channels=2, channels=(8, 16), layers=1, groups=4, scaling_factor=0.5)  # factor 2


@pytest.fixture
def vae():
    torch.manual_seed(0)
    return VAE(TINY).eval().requires_grad_(False)


def latent(*shape):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(1))


def test_the_full_size_has_the_published_number_of_parameters():
    with torch.device("meta"):
        model = VAE(SIZES["VAE-SD"])
    assert sum(p.numel() for p in model.parameters()) == 83_653_863 and len(model.state_dict()) == 248
    assert model.factor == 8


def test_shapes_of_encoding_and_decoding(vae):
    x = torch.zeros(2, 3, 12, 8)
    mean, logvar = vae.encode(x)
    assert mean.shape == logvar.shape == (2, 2, 6, 4)
    assert vae.decode(mean).shape == x.shape


@pytest.mark.parametrize("height, width", [(13, 8), (12, 9)])
def test_a_side_that_the_factor_does_not_divide(vae, height, width):
    with pytest.raises(ValueError, match=rf"image sides \({height}, {width}\) are not multiples of 2"):
        vae.encode(torch.zeros(1, 3, height, width))


def test_the_log_variance_is_cut_where_its_exponential_would_overflow(vae):
    vae.quant_conv.weight.zero_()
    vae.quant_conv.bias.copy_(torch.tensor([0.0, 0.0, 500.0, -500.0]))  # two means, two log-variances
    mean, logvar = vae.encode(torch.zeros(1, 3, 4, 4))
    assert (mean == 0).all() and (logvar[:, 0] == 20).all() and (logvar[:, 1] == -30).all()


def test_a_sample_is_the_mean_plus_the_standard_deviation_times_noise():
    mean, variance, noise = torch.tensor([1.0, -2.0]), torch.tensor([4.0, 0.25]), torch.tensor([3.0, 10.0])
    assert torch.allclose(VAE.sample(mean, variance.log(), noise), torch.tensor([7.0, 3.0]))


def test_downsampling_pads_right_and_below_only(vae):
    """The output at (i, j) reads rows 2i..2i+2: row 0 reaches the first output row alone, row 2 the first two."""
    down, x = vae.encoder.down[0], latent(1, 8, 8, 8)
    down.res = nn.ModuleList()
    for row, reached in ((0, [0]), (2, [0, 1]), (7, [3])):
        for axis in (2, 3):
            changed = x.clone()
            changed.select(axis, row).add_(1)
            moved = (down(changed) - down(x)).abs().amax((0, 1, 5 - axis))
            assert moved.nonzero().flatten().tolist() == reached
    assert down(x).shape == (1, 8, 4, 4)


def test_images_undoes_the_scale_and_a_batch_changes_nothing(vae):
    z = latent(5, 2, 4, 6)
    expected = vae.decode(z / TINY.scaling_factor)
    assert torch.allclose(vae.images(z, batch=2), expected, atol=1e-5)
    assert torch.equal(vae.images(z), expected)


def test_one_tile_is_the_plain_decoding(vae):
    z = latent(1, 2, 8, 6)
    assert torch.equal(vae.decode_tiled(z, tile=8, overlap=2), vae.decode(z))


def test_a_decoder_that_mixes_no_positions_is_the_same_in_tiles(vae):
    """Then every tile is a crop of the whole, so the weights must add up to 1 everywhere."""
    vae.decoder = nn.Sequential(nn.Conv2d(2, 3, 1), nn.Upsample(scale_factor=2))
    z = latent(2, 2, 19, 11)
    with torch.no_grad():
        assert torch.allclose(vae.decode_tiled(z, tile=8, overlap=3), vae.decode(z), atol=1e-6)


def test_a_decoder_without_means_over_the_image_is_exact_between_the_seams(vae):
    """Without its attention and norms the decoder sees REACH latents far: only a seam's overlap can differ."""
    reach = 8  # 5 convolutions of 3 on latents, 6 on pixels half their size
    vae.decoder.mid = nn.Identity()
    for block in [block for level in vae.decoder.up for block in level.res]:
        block.norm1, block.norm2 = nn.Identity(), nn.Identity()
    vae.decoder.norm_out = nn.Identity()
    z = latent(1, 2, 4, 48)
    whole, tiled = vae.decode(z), vae.decode_tiled(z, tile=32, overlap=2 * reach)  # tiles 0..32 and 16..48
    error = (tiled - whole).abs().amax((0, 1, 2))  # (96,) by column
    assert error[:32].max() < 1e-5 and error[64:].max() < 1e-5
    assert 0 < error[32:64].max() < 0.1 * whole.std()


def test_the_real_decoder_in_tiles_stays_near_the_whole(vae):
    """Attention and GroupNorm average over a tile instead of the image, so tiles are near the whole and not equal.

    Measured here: a root mean square error of 0.063 standard deviations.
    """
    z = latent(1, 2, 48, 40)
    whole, tiled = vae.decode(z), vae.decode_tiled(z, tile=32, overlap=16)
    assert tiled.shape == whole.shape
    assert F.mse_loss(tiled, whole).sqrt() < 0.1 * whole.std()


@pytest.mark.parametrize(
    "length, tile, overlap", [(8, 8, 2), (5, 8, 2), (9, 8, 2), (14, 8, 2), (50, 16, 15), (33, 8, 0)]
)
def test_tiles_cover_everything_and_share_their_overlap(length, tile, overlap):
    first = starts(length, tile, overlap)
    assert first[0] == 0 and first[-1] == max(length - tile, 0)
    assert all(0 < b - a <= tile - overlap for a, b in zip(first, first[1:]))


@pytest.mark.parametrize("length, overlap", [(1, 4), (7, 3), (8, 3), (6, 10), (5, 1), (5, 0)])
def test_blending_weights_are_symmetric_and_never_zero(length, overlap):
    weights = ramp(length, overlap, torch.zeros(1))
    assert weights.shape == (length,) and weights.min() > 0 and weights.max() <= 1
    assert torch.equal(weights, weights.flip(0)) and weights[0].item() == pytest.approx(1 / max(overlap, 1))
    assert (weights[overlap : length - overlap] == 1).all()

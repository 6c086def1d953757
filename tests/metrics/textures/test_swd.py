"""The sliced Wasserstein distance against an independent computation, and the distance of nearest patches."""

import numpy as np
import pytest
import torch
from scipy.ndimage import convolve1d
from scipy.stats import wasserstein_distance

from data import load
from data.transforms import Transform, to_tensor
from metrics.textures.copies import patch_distances
from metrics.textures.swd import DIRECTIONS, PATCHES, Projections, own_distances, pyramid, quantiles, swd


@pytest.fixture(scope="module")
def images():
    """Ten photographs, two of each state, and ten others, at 64 pixels."""
    return [to_tensor(load(f"generated:hazelnut/{split}/2", Transform(64)).pixels) for split in ("few", "test")]


def test_the_scales_add_up_to_the_image_and_each_is_blurred_by_scipys_filter(images):
    scales = pyramid(images[0])
    assert [scale.shape[-1] for scale in scales] == [64, 32, 16]
    x = scales[-1]
    for scale in scales[-2::-1]:
        x = scale + torch.nn.functional.interpolate(x, scale.shape[-2:], mode="bilinear", align_corners=False)
    torch.testing.assert_close(x, images[0])
    kernel = np.array([1, 4, 6, 4, 1]) / 16
    blurred = convolve1d(convolve1d(images[0].numpy(), kernel, 2, mode="mirror"), kernel, 3, mode="mirror")
    coarse = convolve1d(convolve1d(blurred[..., ::2, ::2], kernel, 2, mode="mirror"), kernel, 3, mode="mirror")
    np.testing.assert_allclose(scales[-1].numpy(), coarse[..., ::2, ::2], atol=1e-6)


def test_it_is_the_mean_of_scipys_wasserstein_distances_of_the_projections(images):
    """Patches cut out one by one and scaled in numpy; scipy's exact distance on each direction."""
    few, test = images
    ours = swd(test, few)
    expected, generator = [], torch.Generator().manual_seed(0)
    for real, fake in zip(pyramid(few), pyramid(test)):
        top, left = (torch.randint(real.shape[-1] - 6, (PATCHES,), generator=generator).numpy() for _ in range(2))
        w = torch.randn(147, DIRECTIONS, generator=generator).numpy()
        w /= np.linalg.norm(w, axis=0)
        mean, deviation = real.numpy().mean((0, 2, 3)), real.numpy().std((0, 2, 3), ddof=1)

        def cut(x, top=top, left=left, mean=mean, deviation=deviation):
            x = (x.numpy() - mean[:, None, None]) / deviation[:, None, None]
            return np.stack([x[:, :, i : i + 7, j : j + 7].reshape(len(x), 147) for i, j in zip(top, left)], 1)

        p, q = cut(fake).reshape(-1, 147) @ w, cut(real).reshape(-1, 147) @ w
        expected.append(np.mean([wasserstein_distance(p[:, k], q[:, k]) for k in range(DIRECTIONS)]))
    np.testing.assert_allclose(ours.numpy(), expected, rtol=0.05)


def test_equal_images_have_none_and_two_known_distributions_the_known_one(images):
    assert swd(images[0], images[0]).max() == 0
    shifted = torch.randn(40, 1, 128, 1, generator=torch.Generator().manual_seed(0))
    assert (quantiles(shifted + 0.5) - quantiles(shifted)).mean().item() == pytest.approx(0.5, abs=1e-6)
    other = 2 * torch.randn(60, 1, 128, 1, generator=torch.Generator().manual_seed(1))
    # W_1 of N(0, 1) and N(0, 4) is E |z|
    assert (quantiles(other) - quantiles(shifted)).abs().mean().item() == pytest.approx((2 / torch.pi) ** 0.5, abs=0.03)


def test_images_differ_among_themselves_and_one_has_no_other(images):
    project = Projections(images[0])
    p = project(images[0])
    assert own_distances(p, 4).shape == (10, 3) and own_distances(p, 4).mean() < own_distances(p, 1).mean()
    with pytest.raises(ValueError, match="needs 2 of them, found 1"):
        own_distances(p[:1], 1)
    with pytest.raises(ValueError, match="7 pixels a side need images as large, found 4"):
        Projections(torch.zeros(2, 3, 4, 4))


def test_patches_of_a_copy_are_near_however_it_is_turned_mirrored_or_shifted(images):
    few, test = images
    distances = patch_distances(torch.cat([few[:3].rot90(1, (-2, -1)).flip(-1), few[:1].roll(4, -1), test]), few)
    assert distances.shape == (14, 10) and distances[:3].argmin(1).tolist() == [0, 1, 2] and distances[3].argmin() == 0
    copies, real = distances.min(1).values.split([4, 10])
    assert copies[:3].max() < 1e-3 and copies.max() < 0.5 * real.min()

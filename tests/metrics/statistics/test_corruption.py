"""The corruption stage: what counts as noise, and planted curves that hold one or none."""

import pytest
import torch
from scipy.ndimage import gaussian_filter, median_filter

from data import load
from data.transforms import Transform, to_tensor
from metrics.statistics.corruption import (
    ROUNDING,
    Own,
    best,
    corrupted,
    deviation,
    feature_similarity,
    median,
    noise_residual,
    stage,
)


def seeded(seed=0):
    return torch.Generator().manual_seed(seed)


@pytest.fixture(scope="module")
def real():
    """Ten generated photographs, two of each state."""
    return to_tensor(load("generated:hazelnut/few/2", Transform(64)).pixels)


def looks(similarity, residual, noise=(0.01, 0.02), every=10):
    """Arguments of `stage`: a look every ten steps, each with the same noise."""
    return [every * i for i in range(len(similarity))], similarity, residual, [noise] * len(similarity)


@pytest.mark.parametrize("height, width", [(17, 13), (3, 3), (1, 1), (1, 5)])
def test_the_median_is_scipys(height, width):
    x = torch.rand(2, 3, height, width, generator=seeded())
    assert torch.equal(median(x), torch.from_numpy(median_filter(x.numpy(), (1, 1, 3, 3), mode="nearest")))


def test_noise_raises_the_residual_and_blur_lowers_it(real):
    noise = torch.randn(real.shape, generator=seeded())
    noisy = torch.stack([noise_residual(real + s * noise) for s in (0, 0.02, 0.05, 0.1, 0.2, 0.4)])  # (6, N)
    blurred = torch.stack(
        [
            noise_residual(torch.from_numpy(gaussian_filter(real.numpy(), (0, 0, s, s))))
            for s in (0, 0.4, 0.6, 0.8, 1.2, 2)
        ]
    )  # (6, N)
    assert (noisy.diff(dim=0) > 0).all() and (blurred.diff(dim=0) < 0).all()


def test_an_edge_is_no_noise_and_no_image_has_less_than_rounding():
    edge = torch.ones(2, 3, 8, 8)
    edge[0, :, :, 4:] = -1
    assert noise_residual(edge).tolist() == pytest.approx([ROUNDING] * 2)
    levels = torch.rand(1, 3, 64, 64, generator=seeded()) * 2 - 1
    rounded = ((levels + 1) * 127.5).round() / 127.5 - 1
    assert (rounded - levels).square().mean().item() == pytest.approx(ROUNDING, rel=0.05)


def test_feature_similarity_is_the_cosine_to_the_nearest_training_image_of_the_class():
    train = torch.tensor([[2.0, 0, 0], [0, 5, 0]])
    samples = torch.tensor([[0, 1.0, 0], [3, 4, 0], [3, 4, 0], [0, 0, 1], [-1, 0, 0]])
    same = torch.tensor([[True, True], [True, True], [True, False], [True, True], [True, False]])
    assert feature_similarity(samples, train, same).tolist() == pytest.approx([1, 0.8, 0.6, 0, -1])


def test_the_deviation_is_the_bootstraps():
    values = torch.rand(12, generator=seeded())
    again = values[torch.randint(12, (20000, 12), generator=seeded(1))].mean(1)  # (20000,)
    assert deviation(values) == pytest.approx(again.std().item(), rel=0.02)
    assert deviation(torch.ones(3)) == 0


@pytest.mark.parametrize(
    "similarity, residual, found, kept",
    [
        (
            [0.5, 0.7, 0.8, 0.6, 0.5, 0.7, 0.9],
            [1, 1, 1, 2, 3, 2, 1],
            (30, 50),
            60,
        ),  # dip and recovery, to above the top
        ([0.5, 0.7, 0.8, 0.6, 0.5, 0.79, 0.79], [1, 1, 1, 2, 3, 1, 1], (30, 40), 20),  # to as good as the top
        ([0.5, 0.7, 0.8, 0.6, 0.5], [1, 1, 1, 2, 3], (30, 40), 20),  # still down at the end
        ([0.5, 0.8, 0.6], [1, 1, 2], (20, 20), 10),  # found at its first look
        ([0.5, 0.6, 0.7, 0.8, 0.9], [1, 2, 3, 4, 5], None, 40),  # noise, but more and more alike
        ([0.5, 0.8, 0.6, 0.5, 0.7], [1, 1, 0.5, 0.4, 0.5], None, 10),  # the samples grow dull, not noisy
        ([0.5, 0.8, 0.77, 0.76, 0.8], [1, 1, 2, 3, 2], None, 10),  # a fall within three deviations
        ([0.5, 0.8, 0.6, 0.6, 0.8], [1, 1, 1.05, 1.08, 1], None, 10),  # noise within three deviations
        ([0.8, 0.7, 0.6, 0.5], [1, 2, 2, 2], (10, 30), 30),  # from the first look on: there is no best
        ([0.8, 0.7, 0.75, 0.75], [1, 1, 1, 1], None, 20),  # step 0 is not kept for being alike
        ([0.5, 0.8, 0.5, 0.8, 0.5], [1, 1, 2, 1, 2], (20, 20), 10),  # the first of two
        ([0.8], [1], None, 0),
    ],
)
def test_a_planted_stage_is_found(similarity, residual, found, kept):
    assert stage(*looks(similarity, residual)) == found and best(*looks(similarity, residual)) == kept


def test_the_best_is_never_step_0_nor_less_alike_than_the_oddest_image_nor_later_for_being_nearer_than_images_are():
    steps, flat = [0, 10, 20, 30], ([1, 1, 1, 1], [(0.01, 0.02)] * 4)
    assert best(steps, [0.9, 0.7, 0.8, 0.75], *flat, Own(least=0.6)) == 20
    assert best(steps, [0.9, 0.4, 0.5, 0.45], *flat, Own(least=0.6)) == 30  # none is: the last
    assert best(steps, [0.9, 0.4, 0.9, 0.95], *flat, Own(least=0.6, enough=0.85)) == 20  # copies are no better


def test_samples_with_no_more_noise_than_a_training_image_are_not_corrupted():
    looked = looks([0.5, 0.8, 0.6, 0.5, 0.7], [0.2, 0.3, 0.8, 1.5, 0.6])
    assert stage(*looked) == (20, 40)
    assert stage(*looked, Own(noisiest=1.2)) == (30, 30) and stage(*looked, Own(noisiest=2.0)) is None


def test_flat_curves_have_no_stage_however_long_they_are_watched():
    """200 runs of 20 looks that differ by their noise alone: some seem to fall, in none does noise rise as well."""
    noise = (0.02, 0.05)
    alarms, falls = 0, 0
    for seed in range(200):
        f, r = (0.8 + torch.randn(2, 20, generator=seeded(seed)) * torch.tensor(noise)[:, None]).tolist()
        alarms += any(corrupted(f, r, [noise] * 20))
        falls += any(corrupted(f, list(range(20)), [noise] * 20))
    assert alarms == 0 < falls < 40


def test_what_is_known_at_a_look_does_not_change_with_later_ones():
    f, r = torch.rand(2, 30, generator=seeded(1)).tolist()
    whole = corrupted(f, r, [(0.01, 0.01)] * 30)
    assert True in whole
    assert all(corrupted(f[:n], r[:n], [(0.01, 0.01)] * n) == whole[:n] for n in range(31))

"""Blended latents and RePaint's way back: what stays is the good latent, what is drawn is free."""

import pytest
import torch

from sampling import SAMPLERS, Resampled, Schedule, batched_cfg, blended, sample_latents, sample_noise, timesteps_of
from sampling.fill import visits

SCHEDULE, SHAPE, COUNT = Schedule.linear(), (2, 4, 4), 3
GOOD = torch.randn(COUNT, *SHAPE, generator=torch.Generator().manual_seed(0))
HALF = torch.zeros(COUNT, 1, 4, 4)
HALF[..., :2] = 1


def filled(mask, sampler="ddim", steps=5, times=1, jump=2, strength=None, seen=None):
    """The latents, and what the model saw: {timestep: the latents there}."""

    def model(x, t, y):
        if seen is not None:
            seen.append((int(t[0]), x.clone()))
        return torch.tanh(x + t.view(-1, 1, 1, 1) / 1000)

    used = timesteps_of(sampler, SCHEDULE, steps)
    used = used if strength is None else used[: int(len(used) * strength)]

    def on_step(here):
        numbers = range(here.start, here.stop)
        eps = sample_noise(7, numbers)(GOOD[here])
        return blended(GOOD[here], mask[here], eps, SCHEDULE, used, sample_noise(8, numbers))

    about = {name: getattr(SCHEDULE, name) for name in SCHEDULE.__dataclass_fields__}
    schedule = SCHEDULE if times == 1 else Resampled(**about, times=times, jump=jump)
    start = {} if strength is None else {"image": GOOD, "strength": strength}
    labels = torch.zeros(COUNT, dtype=torch.long)
    denoiser = batched_cfg(model, labels, None, 1.0)
    return sample_latents(
        denoiser, range(COUNT), SHAPE, schedule, sampler, steps, seed=7, batch=2, on_step=on_step, **start
    )


@pytest.mark.parametrize("sampler", SAMPLERS)
def test_a_mask_of_ones_is_plain_sampling(sampler):
    labels = torch.zeros(COUNT, dtype=torch.long)
    plain = batched_cfg(lambda x, t, y: torch.tanh(x + t.view(-1, 1, 1, 1) / 1000), labels, None, 1.0)
    expected = sample_latents(plain, range(COUNT), SHAPE, SCHEDULE, sampler, 5, seed=7)
    assert torch.equal(filled(torch.ones(COUNT, 1, 4, 4), sampler), expected)


@pytest.mark.parametrize("strength", [None, 0.8])
def test_what_stays_is_the_good_latent_with_one_noise_at_every_step(strength):
    seen = []
    filled(HALF, strength=strength, seen=seen)
    eps = sample_noise(7, range(COUNT))(GOOD)
    for t, x in seen[1 if strength is None else 0 :]:
        rows = slice(0, len(x)) if len(x) == 2 else slice(2, 3)
        known = SCHEDULE.add_noise(GOOD[rows], eps[rows], torch.full((len(x),), t))
        if t != seen[0][0] or strength:
            assert torch.allclose(x[..., 2:], known[..., 2:], atol=1e-6)
            assert t == seen[0][0] or not torch.allclose(x[..., :2], known[..., :2], atol=0.1)


def test_blocks_are_gone_through_several_times_from_the_noisy_end():
    assert visits(5, 1, 2) == [4, 3, 2, 1, 0]
    assert visits(5, 2, 2) == [4, 4, 3, 2, 3, 2, 1, 0, 1, 0]
    assert visits(3, 3, 10) == [2, 1, 0] * 3


@pytest.mark.parametrize("sampler", ["ddim", "ddpm", "lcm"])
def test_between_two_times_the_noise_comes_back(sampler):
    """Of a model that predicts no noise, x is alpha x0 and the noise that was added: its variance shows which."""
    seen = []
    whole = filled(HALF, sampler, steps=6, times=3, jump=2, seen=seen)
    steps = sorted({t for t, _ in seen})
    assert [t for t, x in seen if len(x) == 2] == [steps[i] for i in visits(6, 3, 2)]
    assert whole.isfinite().all()
    by_level = {}
    for t, x in seen:
        by_level.setdefault(t, []).append(x)
    assert not torch.equal(by_level[steps[3]][0], by_level[steps[3]][1])


def test_the_noise_that_comes_back_is_repaints():
    """sqrt(ratio) x + sqrt(1 - ratio) n, with what stays at the lower level before."""
    z, ones = torch.zeros(1, 1, 50, 50), torch.ones(1, 1, 50, 50)
    noise = sample_noise(3, [0])
    step = blended(z, ones, z, SCHEDULE, [100, 500, 900], noise)
    x = torch.full_like(z, 2.0)
    assert torch.equal(step(x, 900), x) and torch.equal(step(x, 500), x)
    back = step(x, 900)  # x ends the step from 500 at 100
    ratio = (SCHEDULE.alpha_bar[900] / SCHEDULE.alpha_bar[100]).item()
    assert back.mean().item() == pytest.approx(2 * ratio**0.5, abs=0.05)
    assert back.std().item() == pytest.approx((1 - ratio) ** 0.5, abs=0.05)


@pytest.mark.parametrize("numbers", [{"times": 0}, {"jump": 0}])
def test_numbers_below_one_are_refused(numbers):
    about = {name: getattr(SCHEDULE, name) for name in SCHEDULE.__dataclass_fields__}
    with pytest.raises(ValueError, match="times and jump must be at least 1"):
        Resampled(**about, **numbers)

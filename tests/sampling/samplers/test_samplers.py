"""What every sampler owes: it finds a known x0, and it agrees with the others where theory says so."""

import itertools
import math
from dataclasses import replace
from functools import partial

import pytest
import torch

from sampling import SAMPLERS, Schedule, ddim, ddpm, dpm, heun, timesteps_of
from sampling.samplers.dpm import half_log_snr

SHAPE = (2, 4, 3, 3)
X = torch.randn(SHAPE, generator=torch.Generator().manual_seed(1))
X0 = torch.randn(SHAPE, generator=torch.Generator().manual_seed(2))
ALL = {**SAMPLERS, "ddim eta 1": partial(ddim, eta=1.0), "ddpm large": partial(ddpm, variance="large")}


def seeded():
    """A noise function that repeats the same draws each time it is made."""
    generator = torch.Generator().manual_seed(3)
    return lambda x: torch.randn(x.shape, generator=generator, dtype=torch.float64).to(x)


def oracle(schedule):
    """A denoiser that knows the only image in the world."""

    def denoise(x, t):
        alpha, sigma = schedule.alpha_sigma(t, x)
        return schedule.target(X0.to(x), (x - alpha * X0.to(x)) / sigma, t)

    return denoise


def smooth(x, t):
    """A deterministic stand-in for a network: bounded, different at every step and place."""
    return torch.tanh(0.7 * x + 0.3 * x.flip(-1) + t.view(-1, 1, 1, 1) / 1000)


@pytest.mark.parametrize("name", [name for name in ALL if name not in ("lcm", "sde")])  # see test_lcm.py, test_flow.py
@pytest.mark.parametrize("prediction", ["eps", "v", "x0"])
@pytest.mark.parametrize("steps", [20, [0, 10, 999], [999]])
def test_oracle_is_recovered(name, prediction, steps):
    schedule = Schedule.linear(prediction=prediction)
    found = ALL[name](oracle(schedule), X, schedule, steps, seeded())
    assert found.dtype == torch.float32
    torch.testing.assert_close(found, X0, atol=2e-4, rtol=0)


def test_ddim_with_eta_one_is_ddpm_with_the_small_variance():
    schedule = Schedule.linear()
    a = ddim(smooth, X.double(), schedule, 25, seeded(), eta=1.0)
    b = ddpm(smooth, X.double(), schedule, 25, seeded(), variance="small")
    torch.testing.assert_close(a, b)


def test_dpm_without_history_is_ddim():
    """With one step before the clean end, both solve the ODE to first order."""
    schedule = Schedule.linear()
    a, b = (sampler(smooth, X.double(), schedule, [100, 900]) for sampler in (dpm, ddim))
    torch.testing.assert_close(a, b)


def test_ddim_is_to_the_bit_what_alpha_bar_alone_gives():
    """The steps of Song 2021, eq. 12 and 16, written with alpha_bar as they were before the path was general."""
    scaled = Schedule.scaled_linear()
    stable = replace(scaled, spacing="leading", offset=1, final_alpha_bar=scaled.alpha_bar[0].item())
    for schedule, steps, eta in itertools.product((Schedule.linear(), stable), (2, 7, 50), (0.0, 1.0)):
        x, noise, visited = X, seeded(), schedule.timesteps(steps)
        for t, before in reversed(list(zip(visited, [None, *visited]))):
            a, end = schedule.alpha_bar[t].item(), schedule.final_alpha_bar
            prev = end if before is None else schedule.alpha_bar[before].item()
            eps = smooth(x, torch.full((2,), t))
            x0 = (x - (1 - a) ** 0.5 * eps) / a**0.5
            std = eta * ((1 - prev) / (1 - a) * (1 - a / prev)) ** 0.5
            x = prev**0.5 * x0 + (1 - prev - std**2) ** 0.5 * eps
            x = x + std * noise(x) if std > 0 else x
        assert torch.equal(ddim(smooth, X, schedule, steps, seeded(), eta), x)


def test_dpm_and_heun_have_second_order():
    """Halving the step halves DDIM's error and divides that of the others by about four, against a fine solution."""
    schedule = Schedule.cosine(prediction="x0")
    x = X.double()
    errors = {}
    for sampler in (ddim, dpm, heun):
        grids = [range(99, 900, gap) for gap in (1, 50, 100)]  # 99, .., 899: the last jump is the same in all
        fine, middle, coarse = (sampler(smooth, x, schedule, grid) for grid in grids)
        errors[sampler] = ((coarse - fine).norm() / (middle - fine).norm()).item()
    assert errors[ddim] < 2.5 < min(errors[dpm], errors[heun])


def test_the_three_predictions_walk_the_same_path():
    x = X.double()
    by_eps = Schedule.linear()

    def recast(schedule):  # the same network, speaking another language
        def denoise(x, t):
            eps, x0 = by_eps.eps_and_x0_at(smooth(x, t), x, t)
            return schedule.target(x0, eps, t)

        return denoise

    for sampler in (ddim, dpm, partial(ddpm, variance="large")):
        schedules = [Schedule.linear(prediction=p) for p in ("eps", "v", "x0")]
        paths = [sampler(recast(schedule), x, schedule, 20, seeded()) for schedule in schedules]
        torch.testing.assert_close(paths[0], paths[1])
        torch.testing.assert_close(paths[0], paths[2])


@pytest.mark.parametrize("v, fixed", [(1.0, "large"), (-1.0, "small")])
def test_learned_variance_lies_between_large_and_small(v, fixed):
    schedule = Schedule.linear()
    learned = ddpm(lambda x, t: torch.cat([smooth(x, t), torch.full_like(x, v)], 1), X.double(), schedule, 25, seeded())
    torch.testing.assert_close(learned, ddpm(smooth, X.double(), schedule, 25, seeded(), variance=fixed))


def test_a_network_without_variance_samples_with_the_small_one():
    schedule = Schedule.linear()
    paths = [ddpm(smooth, X, schedule, 10, seeded(), variance=variance) for variance in (None, "small")]
    assert torch.equal(*paths)


def test_fixed_variances_ignore_a_learned_half():
    schedule = Schedule.linear()
    for variance in ("small", "large"):
        a = ddpm(lambda x, t: torch.cat([smooth(x, t), x], 1), X, schedule, 10, seeded(), variance)
        assert torch.equal(a, ddpm(smooth, X, schedule, 10, seeded(), variance))


@pytest.mark.parametrize(
    "name, draws", [("ddpm", 4), ("ddim", 0), ("ddim eta 1", 4), ("dpm++", 0), ("heun", 0), ("sde", 4), ("lcm", 4)]
)
def test_no_noise_at_the_last_step(name, draws):
    calls = []

    def counted(x):
        calls.append(x)
        return torch.zeros_like(x)

    ALL[name](smooth, X, Schedule.linear(), 5, counted)
    assert len(calls) == draws


def test_timesteps_reach_the_network_as_a_batch_in_descending_order():
    seen = []

    def watching(x, t):
        seen.append(t.tolist())
        return smooth(x, t)

    for name, sampler in SAMPLERS.items():
        seen.clear()
        sampler(watching, X, Schedule.linear(), 3, seeded())
        visited = {"lcm": [999, 679, 339], "heun": [999, 500, 500, 0, 0]}.get(name, [999, 500, 0])
        assert seen == [[t, t] for t in visited]


@pytest.mark.parametrize("name", ALL)
def test_on_step_changes_the_latents_ahead_of_a_step(name):
    """Put in at the first step, other latents are another start; the same ones change no bit."""
    schedule, other, seen = Schedule.linear(), X.flip(0), []

    def put_in(x, t):
        seen.append(t)
        return other if t == 999 else x

    replaced = ALL[name](smooth, X, schedule, 5, seeded(), on_step=put_in)
    assert torch.equal(replaced, ALL[name](smooth, other, schedule, 5, seeded()))
    assert seen == timesteps_of(name, schedule, 5)[::-1]


def test_the_starting_noise_is_not_written_to():
    before = X.clone()
    for sampler in SAMPLERS.values():
        sampler(smooth, X, Schedule.linear(), 3, seeded())
    assert torch.equal(X, before)


def test_half_log_snr_of_clean_data_is_infinite():
    assert half_log_snr(1.0, 0.0) == float("inf")
    assert half_log_snr(0.5, 0.5) == pytest.approx(0)


def test_errors():
    schedule = Schedule.linear()
    with pytest.raises(ValueError, match="eta must be between 0 and 1, found 1.5"):
        ddim(smooth, X, schedule, 5, seeded(), eta=1.5)
    with pytest.raises(ValueError, match="pass a noise function"):
        ddim(smooth, X, schedule, 5, eta=0.5)
    with pytest.raises(ValueError, match="learned, small, large, found 'medium'"):
        ddpm(smooth, X, schedule, 5, seeded(), variance="medium")
    with pytest.raises(ValueError, match='"learned" needs 8 output channels, the network has 4'):
        ddpm(smooth, X, schedule, 5, seeded(), variance="learned")


def test_ddim_ends_where_the_schedule_says():
    """Stable Diffusion's last step ends at alpha_bar_0 and not in x0: in its x0 and eps by equation 12."""
    schedule = replace(Schedule.linear(), final_alpha_bar=Schedule.linear().alpha_bar[0].item())
    x, t = X.double(), torch.full((len(X),), 500)
    eps, x0 = schedule.eps_and_x0_at(smooth(x, t), x, t)
    a = schedule.final_alpha_bar
    torch.testing.assert_close(ddim(smooth, x, schedule, [500]), a**0.5 * x0 + (1 - a) ** 0.5 * eps)
    assert not torch.allclose(ddim(smooth, x, Schedule.linear(), [500]), a**0.5 * x0 + (1 - a) ** 0.5 * eps, atol=1e-3)


def test_dpm_on_uneven_steps_is_algorithm_2():
    """Written out for the steps 800, 300, 200 and 100, whose h differ: r is h_before / h."""
    schedule, times = Schedule.linear(), (800, 300, 200, 100)
    alpha_bar = [schedule.alpha_bar[t].item() for t in times]
    lam = [0.5 * math.log(a / (1 - a)) for a in alpha_bar]
    x, x0 = X.double(), []
    for i, t in enumerate(times):
        steps = torch.full((len(x),), t)
        x0.append(schedule.eps_and_x0_at(smooth(x, steps), x, steps)[1])
        if i == 3:
            x = x0[3]  # the last step ends in x0
            break
        h = lam[i + 1] - lam[i]
        D = x0[0]
        if i:
            r = (lam[i] - lam[i - 1]) / h
            D = (1 + 1 / (2 * r)) * x0[i] - x0[i - 1] / (2 * r)
        sigma, sigma_next, alpha_next = (
            (1 - alpha_bar[i]) ** 0.5,
            (1 - alpha_bar[i + 1]) ** 0.5,
            alpha_bar[i + 1] ** 0.5,
        )
        x = sigma_next / sigma * x - alpha_next * (math.exp(-h) - 1) * D
    torch.testing.assert_close(dpm(smooth, X.double(), schedule, [100, 200, 300, 800]), x)

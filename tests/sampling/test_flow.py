"""A flow: its path, its times, and its samplers against a Gaussian, whose velocity is known in closed form."""

from functools import partial

import pytest
import torch

from ops import timestep_embedding
from sampling import SAMPLERS, Flow, Schedule, ddim, ddpm, diffusion_loss, dit_schedule, dpm, heun, sample_latents, sde
from sampling.loss import min_snr_weight
from sampling.samplers.sde import sde_steps

MEAN, STD = 1.5, 0.3  # of the data
FLOW = Flow()


def noise_like(count, seed=0):
    """Noise (count, 1, 1, 1) whose mean is 0 and whose deviation is 1."""
    x = torch.randn(count, 1, 1, 1, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    return (x - x.mean()) / x.std(correction=0)


def gaussian(x, t):
    """What a network that knows N(MEAN, STD^2) answers: -u at s = 1 - t, from E[x0 | x] and E[eps | x]."""
    s = 1 - t.to(x).view(-1, 1, 1, 1)
    gap = (x - (1 - s) * MEAN) / (STD**2 * (1 - s) ** 2 + s**2)
    return MEAN + STD**2 * (1 - s) * gap - s * gap


def error(sampler, steps):
    """Distance of a sampler's result from the exact end of the flow, MEAN + STD eps, at worst."""
    eps = noise_like(64)
    return (sampler(gaussian, eps, FLOW, steps) - (MEAN + STD * eps)).abs().max().item()


@pytest.mark.parametrize("sampler, order", [(ddim, 1), (heun, 2)])
def test_the_error_falls_with_the_order_of_the_sampler(sampler, order):
    errors = [error(sampler, steps) for steps in (20, 40, 80)]
    for coarse, fine in zip(errors, errors[1:]):
        assert 2**order * 0.8 < coarse / fine < 2**order * 1.3
    assert errors[-1] < (0.02, 5e-4)[order - 1]


def test_dpm_walks_from_pure_noise_with_a_smaller_error_than_euler():
    assert error(dpm, 40) < error(ddim, 40) / 4 and error(dpm, 160) < 1e-3


def test_ddim_is_eulers_step():
    x, eps = noise_like(16), noise_like(16)
    grid = [1 - i / 7 for i in range(8)]
    for s, after in zip(grid, grid[1:]):
        x = x + (after - s) * -gaussian(x, FLOW.told(torch.full((16,), s)))
    found = ddim(gaussian, eps, FLOW, 7)
    assert (found - x).abs().max() < 1e-14


def test_heun_is_the_trapezoid_of_two_velocities():
    x = eps = noise_like(16)
    for s, after in ((1.0, 0.5), (0.5, 0.0)):
        u = -gaussian(x, torch.full((16,), 1 - s))
        u_end = -gaussian(x + (after - s) * u, torch.full((16,), 1 - after))
        x = x + (after - s) * (u + u_end) / 2
    assert (heun(gaussian, eps, FLOW, 2) - x).abs().max() < 1e-14


@pytest.mark.parametrize("weight", [lambda s: s, lambda s: 0.0, lambda s: s * s, lambda s: s / 3])
def test_the_sde_keeps_the_marginals_whatever_its_weight(weight):
    generator = torch.Generator().manual_seed(5)
    eps = noise_like(20_000)
    found = sde(
        gaussian, eps, FLOW, 250, lambda x: torch.randn(x.shape, generator=generator, dtype=x.dtype), weight=weight
    )
    assert abs(found.mean() - MEAN) < 0.01 and abs(found.std() - STD) < 0.02


def test_the_sde_keeps_the_marginals_of_a_diffusion_chain_too():
    schedule, generator = Schedule.linear(), torch.Generator().manual_seed(5)

    def eps_of(x, t):
        alpha, sigma = schedule.alpha_sigma(t, x)
        return sigma * (x - alpha * MEAN) / (STD**2 * alpha**2 + sigma**2)

    noise = partial(torch.randn, generator=generator, dtype=torch.float64)
    found = sde(eps_of, noise_like(20_000), schedule, 250, lambda x: noise(x.shape))
    assert abs(found.mean() - MEAN) < 0.02 and abs(found.std() - STD) < 0.02


def test_the_sde_walks_to_the_last_step_of_sit_and_ends_without_noise():
    steps = sde_steps(FLOW, 25)
    assert steps[0] == pytest.approx(0.04) and steps[-1] == 1 and len(steps) == 25
    draws = []
    sde(gaussian, noise_like(4), FLOW, 25, lambda x: draws.append(x) or torch.zeros_like(x))
    assert len(draws) == 24
    x = noise_like(4)
    v = gaussian(x, torch.full((4,), 0.96))
    drift = v + 0.04 * -(x - 0.96 * v) / 0.04  # v + w score, score = (t v - x) / (1 - t)
    torch.testing.assert_close(sde(gaussian, x, FLOW, [0.04], None), x + 0.04 * drift)
    with pytest.raises(ValueError, match="at least 2, found 1"):
        sde_steps(FLOW, 1)


def test_the_ancestral_sampler_and_ddim_with_eta_1_are_one():
    def seeded():
        generator = torch.Generator().manual_seed(3)
        return lambda x: torch.randn(x.shape, generator=generator, dtype=x.dtype)

    a = ddpm(gaussian, noise_like(16), FLOW, 25, seeded())
    torch.testing.assert_close(a, ddim(gaussian, noise_like(16), FLOW, 25, seeded(), eta=1.0))


def test_a_known_image_is_recovered_and_the_idle_channels_are_not_read():
    x0 = torch.randn(2, 4, 3, 3, generator=torch.Generator().manual_seed(2))

    def oracle(x, t):
        s = 1 - t.view(-1, 1, 1, 1)
        return torch.cat([(x0 - x) / s, torch.full_like(x, torch.nan)], 1)

    x = torch.randn(2, 4, 3, 3, generator=torch.Generator().manual_seed(1))
    for name in ("ddim", "ddpm", "dpm++"):
        shifted = SAMPLERS[name](oracle, x, Flow(shift=3.0), 10, torch.zeros_like)
        torch.testing.assert_close(shifted, x0, atol=1e-4, rtol=0)


def test_a_zero_network_has_the_loss_of_noise_minus_data():
    generator = torch.Generator().manual_seed(0)
    x0, eps = torch.randn(2, 512, 4, 8, 8, generator=generator)
    t = FLOW.random_times(512, generator)
    x_t = FLOW.add_noise(x0, eps, t)
    loss, numbers = diffusion_loss(torch.zeros(512, 8, 8, 8), x0, eps, x_t, t, FLOW)
    assert loss.item() == pytest.approx(2, abs=0.05) and numbers.keys() == {"mse"}  # no variational term
    answer = torch.cat([x0 - eps, torch.randn_like(x0)], 1)  # the network's sign
    assert diffusion_loss(answer, x0, eps, x_t, t, FLOW)[0] < 1e-12


def test_the_algebra_inverts_itself():
    x0, eps = torch.randn(2, 8, 4, 2, 2, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    t = torch.linspace(0, 1, 8, dtype=torch.float64)
    x_t = FLOW.add_noise(x0, eps, t)
    found = FLOW.eps_and_x0_at(-FLOW.target(x0, eps, t), x_t, t)
    torch.testing.assert_close(found, (eps, x0))
    assert torch.equal(FLOW.told(t), 1 - t)


def test_the_network_hears_raw_numbers_of_0_to_1_from_noise_to_data():
    heard = []
    ddim(lambda x, t: heard.append(t[0].item()) or torch.zeros_like(x), noise_like(2), FLOW, 4)
    assert heard == [0, 0.25, 0.5, 0.75]
    emb = timestep_embedding(torch.tensor([0.5]), 256)[0]
    assert emb[0].item() == pytest.approx(0.87758, abs=1e-5) and emb[128].item() == pytest.approx(0.47943, abs=1e-5)


def test_the_densities_of_the_training_times():
    def times(**fields):
        return Flow(**fields).random_times(50_000, torch.Generator().manual_seed(0)).double()

    uniform = times()
    assert abs(uniform.mean() - 0.5) < 0.01 and abs(uniform.std() - 12**-0.5) < 0.01
    logit = torch.logit(times(density="logit-normal", mean=-0.4, std=0.7))
    assert abs(logit.mean() + 0.4) < 0.02 and abs(logit.std() - 0.7) < 0.02
    torch.testing.assert_close(times(shift=3.0), 3 * uniform / (1 + 2 * uniform), atol=1e-6, rtol=0)
    assert torch.equal(uniform, times(density="uniform", shift=1.0))


def test_the_min_snr_weight_is_that_of_x0_restated():
    s = torch.tensor([0.1, 0.5, 0.9])
    expected = s**2 * FLOW.snr(s).clamp(max=5.0)
    torch.testing.assert_close(min_snr_weight(FLOW.snr(s), 5.0, "flow"), expected)
    assert min_snr_weight(FLOW.snr(torch.zeros(1)), 5.0, "flow") == 0


def test_an_image_to_start_from_is_noised_to_the_share_of_the_way():
    image, seen = torch.full((1, 2, 2), 2.0), []

    def denoiser(here):
        return lambda x, t: seen.append((x, t)) or torch.zeros_like(x)

    sample_latents(denoiser, range(1), (1, 2, 2), FLOW, steps=10, image=image, strength=0.4)
    first, t = seen[0]
    start = sample_latents(denoiser, range(1), (1, 2, 2), FLOW, steps=[1.0])
    assert t.item() == pytest.approx(0.6) and len(seen) == 5
    torch.testing.assert_close(first, 0.6 * image[None] + 0.4 * start)


def test_a_flow_has_one_schedule():
    assert dit_schedule(objective="flow") == FLOW
    with pytest.raises(ValueError, match="objective 'flow' has no noise schedule 'progressive'"):
        dit_schedule("progressive", objective="flow")
    with pytest.raises(ValueError, match="objective 'velocity'"):
        dit_schedule(objective="velocity")


@pytest.mark.parametrize(
    "fields, words",
    [
        ({"density": "cosine"}, "density must be one of uniform, logit-normal, found 'cosine'"),
        ({"std": 0.0}, "must be above 0"),
        ({"shift": -1.0}, "must be above 0"),
    ],
)
def test_another_density_is_refused(fields, words):
    with pytest.raises(ValueError, match=words):
        Flow(**fields)


@pytest.mark.parametrize("steps", [[], [0.5, 0.2], [0.0, 1.0], [0.5, 1.5]])
def test_times_outside_of_the_path_are_refused(steps):
    with pytest.raises(ValueError, match="the times of a flow must ascend above 0 and up to 1"):
        FLOW.chain(steps)


def test_what_a_flow_has_not():
    with pytest.raises(ValueError, match="made of diffusion models, and this is a flow"):
        SAMPLERS["lcm"](gaussian, noise_like(2), FLOW, 4, torch.zeros_like)
    with pytest.raises(ValueError, match="at least 1, found 0"):
        FLOW.timesteps(0)


def test_euler_is_that_of_diffusers():
    diffusers = pytest.importorskip("diffusers")
    for shift in (1.0, 3.0):
        scheduler = diffusers.FlowMatchEulerDiscreteScheduler(shift=shift)
        scheduler.set_timesteps(12)
        x = eps = torch.randn(2, 4, 3, 3, generator=torch.Generator().manual_seed(1))

        def u(x, s):
            return torch.tanh(0.7 * x + 0.3 * x.flip(-1) + s)

        for t in scheduler.timesteps:  # 1000 s
            x = scheduler.step(u(x, t / 1000), t, x).prev_sample
        times = scheduler.sigmas[:-1].double().flip(0)  # s; the last step ends at 0
        found = ddim(lambda x, t: -u(x, 1 - t[0]), eps, FLOW, times.tolist())
        torch.testing.assert_close(found, x, atol=2e-6, rtol=0)
        grid = torch.linspace(scheduler.sigma_min, 1, 12, dtype=torch.float64)  # diffusers' own, not ours
        torch.testing.assert_close(Flow(shift=shift).shifted(grid), times, atol=1e-6, rtol=0)

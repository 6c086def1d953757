"""Whole trajectories against diffusers' schedulers: same toy network, same timesteps, same injected noise."""

from dataclasses import replace

import pytest
import torch

from sampling import Schedule, ddim, ddpm, dpm, lcm, timesteps_of
from sampling.consistency import scalings

diffusers = pytest.importorskip("diffusers")

SCHEDULES = {
    "linear": (Schedule.linear, {"beta_schedule": "linear", "beta_start": 1e-4, "beta_end": 0.02}),
    "scaled_linear": (
        Schedule.scaled_linear,
        {"beta_schedule": "scaled_linear", "beta_start": 0.00085, "beta_end": 0.012},
    ),
    "cosine": (Schedule.cosine, {"beta_schedule": "squaredcos_cap_v2"}),
}
PREDICTIONS = {"eps": "epsilon", "v": "v_prediction", "x0": "sample"}
CASES = [(schedule, prediction) for schedule in ("linear", "scaled_linear") for prediction in PREDICTIONS]
CASES += [("cosine", "v")]  # eps at alpha_bar_999 = 2.4e-9 divides float32 rounding by 5e-5
STEPS = 20
X = torch.randn(2, 4, 3, 3, generator=torch.Generator().manual_seed(1))
Z = torch.randn(STEPS, *X.shape, generator=torch.Generator().manual_seed(2))  # one draw per step


def toy(x, t):
    return torch.tanh(0.7 * x + 0.3 * x.flip(-1) + t.view(-1, 1, 1, 1) / 1000)


def toy_learned(x, t):
    return torch.cat([toy(x, t), torch.cos(3 * x)], dim=1)


def injected():
    draws = iter(Z)
    return lambda x: next(draws)


def build(kind, schedule, prediction, **options):
    make, betas = SCHEDULES[schedule]
    options = {"num_train_timesteps": 1000, "prediction_type": PREDICTIONS[prediction], **betas, **options}
    theirs = getattr(diffusers, kind)(**options)
    theirs.set_timesteps(STEPS)
    return make(prediction=prediction), theirs


def walk(theirs, network, **options):
    x = X
    for i, t in enumerate(theirs.timesteps):
        step = {name: make(i) for name, make in options.items()}
        x = theirs.step(network(x, t.expand(len(x))), t, x, **step).prev_sample
    return x


def close(ours, theirs):
    torch.testing.assert_close(ours, theirs, atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("schedule", SCHEDULES)
def test_alpha_bar(schedule):
    make, betas = SCHEDULES[schedule]
    theirs = diffusers.DDPMScheduler(num_train_timesteps=1000, **betas).alphas_cumprod
    torch.testing.assert_close(make().alpha_bar.float(), theirs, atol=1e-6, rtol=1e-4)


@pytest.mark.parametrize("schedule, prediction", CASES)
@pytest.mark.parametrize(
    "variance, theirs_name", [("small", "fixed_small"), ("large", "fixed_large"), ("learned", "learned_range")]
)
def test_ddpm(schedule, prediction, variance, theirs_name, monkeypatch):
    # clip_sample off: latents have no range. "linspace" spacing ends at t = 0, where neither side adds noise.
    ours, theirs = build(
        "DDPMScheduler", schedule, prediction, variance_type=theirs_name, clip_sample=False, timestep_spacing="linspace"
    )
    draws = injected()  # DDPMScheduler.step takes no noise argument: hand our draws to the function that it calls
    monkeypatch.setattr("diffusers.schedulers.scheduling_ddpm.randn_tensor", lambda shape, **_: draws(X))
    network = toy_learned if variance == "learned" else toy
    expected = walk(theirs, network)
    close(ddpm(network, X, ours, theirs.timesteps.flip(0).tolist(), injected(), variance), expected)


@pytest.mark.parametrize("schedule, prediction", CASES)
@pytest.mark.parametrize("eta", [0.0, 0.5, 1.0])
def test_ddim(schedule, prediction, eta):
    # set_alpha_to_one: the last step goes to clean data, as ours does; Stable Diffusion's released configuration
    # ends at alpha_bar_0 instead. "leading" spacing is the one whose stride DDIMScheduler assumes in each step.
    ours, theirs = build(
        "DDIMScheduler", schedule, prediction, clip_sample=False, set_alpha_to_one=True, timestep_spacing="leading"
    )
    expected = walk(theirs, toy, eta=lambda i: eta, variance_noise=lambda i: Z[i])
    close(ddim(toy, X, ours, theirs.timesteps.flip(0).tolist(), injected(), eta), expected)


@pytest.mark.parametrize("spacing, offset", [("leading", 0), ("leading", 1), ("trailing", 0)])
@pytest.mark.parametrize("eta", [0.0, 1.0])
def test_ddim_as_stable_diffusion_is_published(spacing, offset, eta):
    """Its own timesteps, and a last step that ends at alpha_bar_0."""
    ours, theirs = build(
        "DDIMScheduler",
        "scaled_linear",
        "eps",
        clip_sample=False,
        set_alpha_to_one=False,
        timestep_spacing=spacing,
        steps_offset=offset,
    )
    ours = replace(ours, spacing=spacing, offset=offset, final_alpha_bar=ours.alpha_bar[0].item())
    assert ours.timesteps(STEPS) == theirs.timesteps.flip(0).tolist()
    expected = walk(theirs, toy, eta=lambda i: eta, variance_noise=lambda i: Z[i])
    close(ddim(toy, X, ours, STEPS, injected(), eta), expected)


@pytest.mark.parametrize("steps", [2, 7, 20, 50, 333, 1000])
@pytest.mark.parametrize("spacing, offset", [("linspace", 0), ("leading", 0), ("trailing", 0)])
def test_timesteps(steps, spacing, offset):
    theirs = diffusers.DDIMScheduler(timestep_spacing=spacing, steps_offset=offset)
    theirs.set_timesteps(steps)
    assert replace(Schedule.linear(), spacing=spacing).timesteps(steps) == theirs.timesteps.flip(0).tolist()


@pytest.mark.parametrize("schedule, prediction", CASES)
@pytest.mark.parametrize("spacing", ["linspace", "leading", "trailing"])
def test_dpm(schedule, prediction, spacing):
    # final_sigmas_type "zero" (the default): the last step goes to clean data, as ours does.
    ours, theirs = build(
        "DPMSolverMultistepScheduler",
        schedule,
        prediction,
        algorithm_type="dpmsolver++",
        solver_order=2,
        lower_order_final=True,
        final_sigmas_type="zero",
        timestep_spacing=spacing,
    )
    close(dpm(toy, X, ours, theirs.timesteps.flip(0).tolist()), walk(theirs, toy))


@pytest.mark.parametrize("schedule, prediction", CASES)
@pytest.mark.parametrize("steps", [1, 4, 20])
def test_lcm(schedule, prediction, steps, monkeypatch):
    ours, theirs = build("LCMScheduler", schedule, prediction)
    theirs.set_timesteps(steps)
    draws = injected()  # as in test_ddpm
    monkeypatch.setattr("diffusers.schedulers.scheduling_lcm.randn_tensor", lambda shape, **_: draws(X))
    close(lcm(toy, X, ours, steps, injected()), walk(theirs, toy))


def test_the_steps_and_scalings_of_lcm():
    theirs = diffusers.LCMScheduler(num_train_timesteps=1000)
    for steps in range(1, 51):
        theirs.set_timesteps(steps)
        assert timesteps_of("lcm", Schedule.linear(), steps) == theirs.timesteps.flip(0).tolist()
    t = torch.arange(1000)
    expected = zip(*map(theirs.get_scalings_for_boundary_condition_discrete, t.double()))
    for mine, wanted in zip(scalings(t), expected, strict=True):
        torch.testing.assert_close(mine.double(), torch.stack(wanted), rtol=1e-6, atol=0)

"""Consistency models: the boundary, the steps, and a loss that is zero for the true consistency function."""

import pytest
import torch

from sampling import Schedule, consistency_loss, lcm, timesteps_of
from sampling.consistency import consistency, lcm_steps, scalings, trained_steps
from sampling.latents import sample_latents

SCHEDULES = [Schedule.linear, Schedule.scaled_linear]
PREDICTIONS = ["eps", "v", "x0"]
SHAPE = (64, 2, 3, 3)
MEAN, STD = 0.4, 0.3  # of the data in the Gaussian world


def normal(seed, shape=SHAPE):
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def outputs(schedule, x0_of):
    """A denoiser whose output says that x0 is x0_of(x, t)."""

    def denoise(x, t):
        alpha, sigma = schedule.alpha_sigma(t, x)
        x0 = x0_of(x, t)
        return schedule.target(x0, (x - alpha * x0) / sigma, t)

    return denoise


def posterior_mean(schedule):
    """E[x0 | x_t] of x0 ~ N(m, s^2): what a perfect teacher predicts."""

    def x0(x, t):
        alpha, sigma = schedule.alpha_sigma(t, x)
        variance = (alpha * STD) ** 2 + sigma**2
        return MEAN + alpha * STD**2 / variance * (x - alpha * MEAN)

    return x0


def path_to_the_start(schedule):
    """f(x, t) of that world: (x_t - signal m) / std_t is constant on a path of the flow, which tells its point at 0."""

    def f(x, t):
        (alpha, sigma), (alpha_0, sigma_0) = schedule.alpha_sigma(t, x), schedule.alpha_sigma(torch.zeros_like(t), x)
        std, std_0 = (((s * STD) ** 2 + n**2).sqrt() for s, n in ((alpha, sigma), (alpha_0, sigma_0)))
        return alpha_0 * MEAN + std_0 / std * (x - alpha * MEAN)

    return f


def student_of(schedule, f):
    """The denoiser whose consistency function is f: x0 = (f - c_skip x) / c_out, whatever it is at t = 0."""

    def x0(x, t):
        c_skip, c_out = (c.view(-1, 1, 1, 1) for c in scalings(t))
        return torch.where(c_out > 0, (f(x, t) - c_skip * x) / c_out.clamp(min=1e-9), 7.0)

    return outputs(schedule, x0)


def test_the_scalings_in_literal_numbers():
    c_skip, c_out = scalings(torch.tensor([0, 1, 19, 999]))
    assert c_skip.tolist() == pytest.approx([1, 0.25 / 100.25, 0.25 / 36100.25, 0.25 / 99800100.25])
    assert c_out.tolist() == pytest.approx([0, 10 / 100.25**0.5, 190 / 36100.25**0.5, 1], rel=1e-6)


@pytest.mark.parametrize("prediction", PREDICTIONS)
def test_at_the_start_of_a_path_f_is_x_whatever_the_network_says(prediction):
    x, t = normal(0), torch.zeros(len(normal(0)), dtype=torch.long)
    assert torch.equal(consistency(100 * normal(1), x, t, Schedule.linear(prediction=prediction)), x)


def test_the_trained_steps_and_those_of_a_sampler():
    schedule = Schedule.linear()
    assert trained_steps(schedule) == list(range(19, 1000, 20))
    assert lcm_steps(schedule, 1) == [999] and lcm_steps(schedule, 4) == [259, 499, 759, 999]
    assert lcm_steps(schedule, 50) == trained_steps(schedule)
    assert timesteps_of("lcm", schedule, 3) == timesteps_of(lcm, schedule, 3) == [339, 679, 999]
    assert timesteps_of("ddim", schedule, 3) == [0, 500, 999]
    for steps in (0, 51):
        with pytest.raises(ValueError, match=f"takes 1 to 50 steps, which are all that are trained, found {steps}"):
            lcm_steps(schedule, steps)
    with pytest.raises(ValueError, match="50 steps of the chain are trained, and it has 40"):
        trained_steps(Schedule.linear(T=40))


@pytest.mark.parametrize("make", SCHEDULES)
@pytest.mark.parametrize("prediction", PREDICTIONS)
@pytest.mark.parametrize("steps", [1, 4, [19, 999]])
def test_the_only_image_is_drawn_in_any_number_of_steps(make, prediction, steps):
    schedule, x0 = make(prediction=prediction), normal(1)
    drawn = lcm(outputs(schedule, lambda x, t: x0), normal(2), schedule, steps, lambda x: normal(3))
    torch.testing.assert_close(drawn, x0, atol=2e-4, rtol=0)


def test_one_step_of_the_true_function_draws_the_distribution():
    """N(m, s^2) from noise in one evaluation; the teacher's own one step collapses to the mean."""
    schedule, noise = Schedule.linear(), normal(4, (4096, 1, 1, 1))
    drawn = lcm(student_of(schedule, path_to_the_start(schedule)), noise, schedule, 1, None)
    assert drawn.mean().item() == pytest.approx(MEAN, abs=0.02) and drawn.std().item() == pytest.approx(STD, abs=0.02)
    assert lcm(outputs(schedule, posterior_mean(schedule)), noise, schedule, 1, None).std() < 0.01


@pytest.mark.parametrize("make", SCHEDULES)
@pytest.mark.parametrize("prediction", PREDICTIONS)
def test_the_loss_is_that_of_the_true_function_alone(make, prediction):
    schedule, x0 = make(prediction=prediction), MEAN + STD * normal(5)
    teacher = outputs(schedule, posterior_mean(schedule))

    def loss(student):
        return consistency_loss(student, teacher, x0, schedule, torch.Generator().manual_seed(6))

    true, numbers = loss(student_of(schedule, path_to_the_start(schedule)))
    assert 0 <= numbers["mse"].item() < 1e-5  # what a DDIM step of 20 leaves
    far, _ = loss(teacher)  # its one-step x0 is another from each point of a path
    assert far > 8 * true > 0
    half, _ = loss(student_of(schedule, lambda x, t: 0.5 * path_to_the_start(schedule)(x, t)))
    assert half > far  # at t = 0 f is x, and half of f is not


def test_the_loss_of_a_single_image_is_zero():
    """Then DDIM's step is exact, and so is the true function."""
    schedule, x0 = Schedule.linear(), normal(7)

    def f(x, t):
        (alpha, sigma), (alpha_0, sigma_0) = schedule.alpha_sigma(t, x), schedule.alpha_sigma(torch.zeros_like(t), x)
        return alpha_0 * x0 + sigma_0 / sigma * (x - alpha * x0)

    student, teacher = student_of(schedule, f), outputs(schedule, lambda x, t: x0)
    loss, _ = consistency_loss(student, teacher, x0, schedule, torch.Generator().manual_seed(8))
    assert loss.item() == pytest.approx(0, abs=1e-6)


def test_the_target_is_a_constant_and_variances_and_inputs_are_left_alone():
    schedule, x0, calls = Schedule.linear(), normal(9), []
    before, gain = x0.clone(), torch.tensor(0.5, requires_grad=True)

    def student(x, t):
        calls.append((t, torch.is_grad_enabled()))
        return torch.cat([gain * x, torch.full_like(x, 9.0)], 1)

    def loss(a, b):
        return consistency_loss(a, b, x0, schedule, torch.Generator().manual_seed(10))[0]

    value = loss(student, student)
    value.backward()
    assert [grad for _, grad in calls] == [True, False, False] and gain.grad.abs() > 0  # student, teacher, target
    assert torch.equal(calls[2][0], (calls[0][0] - 20).clamp(min=0)) and torch.equal(x0, before)
    assert torch.equal(value, loss(lambda x, t: gain * x, lambda x, t: gain * x))


def test_a_sampler_that_starts_from_an_image_keeps_to_the_trained_steps():
    seen = []

    def denoiser(here):
        return lambda x, t: seen.append(t[0].item()) or x

    sample_latents(
        denoiser, range(1), SHAPE[1:], Schedule.linear(), "lcm", 4, image=normal(11, SHAPE[1:]), strength=0.8
    )
    assert seen == [759, 499, 259]


def test_what_changes_the_latents_before_a_step_is_called():
    seen = []
    lcm(lambda x, t: x, normal(12), Schedule.linear(), 2, torch.zeros_like, on_step=lambda x, t: seen.append(t) or x)
    assert seen == [999, 499]


def test_between_two_steps_f_is_noised_to_the_next():
    """x = alpha f + sigma z at the second timestep, then f of it."""
    schedule, x, z, seen = Schedule.linear(), normal(13), normal(14), []

    def denoise(x, t):
        seen.append((t[0].item(), x))
        return torch.zeros_like(x)

    lcm(denoise, x, schedule, [299, 799], lambda _: z)
    _, x0 = schedule.eps_and_x0_at(torch.zeros_like(x), x, torch.full((len(x),), 799))
    alpha, sigma = (a.sqrt().item() for a in (schedule.alpha_bar[299], 1 - schedule.alpha_bar[299]))
    assert [t for t, _ in seen] == [799, 299]
    torch.testing.assert_close(seen[1][1], alpha * x0 + sigma * z, atol=1e-4, rtol=0)


def test_the_distance_is_a_square_below_a_thousandth_and_absolute_above():
    """A student whose x0 differs by d between neighbouring trained steps has the loss sqrt(d^2 + 1e-6) - 1e-3."""
    schedule, x0 = Schedule.linear(prediction="x0"), torch.zeros(1, 1, 1, 1)
    for d in (1.0, 0.01):

        def student(x, t, d=d):
            return torch.full_like(x, d / 20) * t  # 20 timesteps lie between two trained ones

        seed = next(s for s in range(9) if torch.randint(50, (1,), generator=torch.Generator().manual_seed(s)) > 5)
        loss, _ = consistency_loss(student, student, x0, schedule, torch.Generator().manual_seed(seed))
        assert loss.item() == pytest.approx((d**2 + 1e-6) ** 0.5 - 1e-3, abs=1e-4 * max(d, 0.1))

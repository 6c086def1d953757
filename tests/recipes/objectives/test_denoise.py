"""Denoising: the noise that a model sees is the noise that it is to predict, of the schedule and with the offset."""

import pytest
import torch

import weights
from recipes.objectives.denoise import denoising
from sampling import Huber, Schedule, diffusion_loss, dit_schedule


def seeded():
    return torch.Generator().manual_seed(0)


def test_offset_noise_is_part_of_what_is_predicted():
    seen = {}

    def model(x, t, cond):
        seen["x"] = x
        return torch.zeros_like(x)

    schedule = weights.sd_schedule()
    loss, _ = denoising(model, lambda progress: schedule, 10.0)(
        {"x0": torch.zeros(2, 3, 8, 8), "cond": None}, seeded(), 0
    )
    means = seen["x"].mean((2, 3))
    assert means.abs().min() > 3 * seen["x"].flatten(2).std(2).max() / 8  # a shift of whole channels
    assert loss > 10  # which the target has too


@pytest.mark.parametrize("prediction, huber", [("eps", None), ("v", None), ("eps", Huber(0.1))])
def test_the_loss_is_that_of_the_equation(prediction, huber):
    """One random timestep for each latent, its noise, the model's answer to the noisy latent and the condition."""
    schedule, asked = Schedule.linear(prediction=prediction), []

    def model(x, t, cond, hint):
        asked.append((x, t, cond, hint))
        return 0.5 * x + cond[:, None, None, None] + hint

    x0, cond, hint = torch.randn(3, 2, 4, 4, generator=seeded()), torch.tensor([0.0, 1.0, 2.0]), torch.ones(3, 1, 1, 1)
    weight = torch.rand(3, 1, 4, 4, generator=seeded())
    batch = {"x0": x0, "cond": cond, "hint": hint, "weight": weight}
    value, numbers = denoising(model, lambda progress: schedule, 0.0, 5.0, huber)(batch, seeded(), 0.0)
    source = seeded()
    t, eps = torch.randint(1000, (3,), generator=source), torch.randn(x0.shape, generator=source)
    alpha, sigma = schedule.alpha_sigma(t, x0)
    ((x_t, seen_t, seen_cond, seen_hint),) = asked
    assert torch.equal(seen_t, t) and torch.equal(seen_cond, cond) and torch.equal(seen_hint, hint)
    torch.testing.assert_close(x_t, alpha * x0 + sigma * eps)
    out = 0.5 * x_t + cond[:, None, None, None] + hint
    expected, terms = diffusion_loss(out, x0, eps, x_t, t, schedule, 5.0, weight, huber)
    assert torch.equal(value, expected) and numbers.keys() == terms.keys()


def test_the_schedule_is_that_of_the_progress():
    asked = []

    def schedule(progress):
        asked.append(progress)
        return dit_schedule("progressive", progress)

    loss = denoising(lambda x, t, cond: torch.zeros_like(x), schedule)
    for progress in (0.0, 0.5, 1.0):
        loss({"x0": torch.zeros(1, 2, 4, 4), "cond": None}, seeded(), progress)
    assert asked == [0.0, 0.5, 1.0]

"""The pseudo-Huber loss against kohya's formulas written out, its two ends, and its place in the training loss."""

import pytest
import torch

from config.training import Denoising
from sampling import Flow, Huber, Schedule, diffusion_loss

CHAIN = Schedule.linear()
T = torch.tensor([0, 250, 700, 999])


@pytest.mark.parametrize("path", [CHAIN, Flow()])
def test_the_thresholds_are_kohyas(path):
    """get_huber_threshold_if_needed of sd-scripts, with huber_c = 0.1 and huber_scale = 1, in double."""
    t = T if path is CHAIN else torch.tensor([0.001, 0.3, 0.7, 1.0])
    share = t.double() / 1000 if path is CHAIN else t.double()
    alpha, sigma = (part.double().flatten() for part in path.alpha_sigma(t, torch.zeros(4, 1)))
    expected = {
        "constant": torch.full((4,), 0.1, dtype=torch.float64),
        "exponential": 0.1**share,
        "snr": (1 - 0.1) / (1 + sigma / alpha) ** 2 + 0.1,
    }
    for schedule, value in expected.items():
        found = Huber(0.1, schedule).threshold(t, path)
        torch.testing.assert_close(found.double(), value, atol=1e-5, rtol=1e-4)


def test_the_loss_is_the_equation_and_its_ends():
    e = torch.linspace(-3, 3, 13).view(1, 1, 1, 13)
    for c in (0.1, 1.0):
        found = Huber(c, "constant").loss(e**2, torch.tensor([5]), CHAIN)
        torch.testing.assert_close(found, 2 * c * ((e**2 + c**2).sqrt() - c), atol=1e-6, rtol=1e-5)
    small, large = (Huber(0.1, "constant").loss(torch.tensor([[x**2]]), torch.tensor([5]), CHAIN) for x in (1e-5, 1e3))
    assert small.item() == pytest.approx(1e-10, rel=1e-5) and large.item() == pytest.approx(2 * 0.1 * 1e3, rel=1e-3)


def test_the_gradient_of_a_large_error_is_bounded():
    e = torch.tensor([0.0, 1e-3, 100.0]).view(3, 1).requires_grad_()
    Huber(0.1, "constant").loss(e**2, torch.tensor([1, 2, 3]), CHAIN).sum().backward()
    assert e.grad.flatten().tolist() == pytest.approx([0, 2e-3, 0.2], rel=1e-3)


def losses(huber, **options):
    generator = torch.Generator().manual_seed(0)
    x0, eps, out = (torch.randn(4, 2, 3, 3, generator=generator) for _ in range(3))
    x_t = CHAIN.add_noise(x0, eps, T)
    return (out - eps) ** 2, diffusion_loss(out, x0, eps, x_t, T, CHAIN, huber=huber, **options)


def test_each_sample_of_a_batch_has_the_threshold_of_its_own_time():
    huber = Huber(0.1, "snr")
    square, (loss, numbers) = losses(huber)
    each = [huber.loss(square[i : i + 1], T[i : i + 1], CHAIN).mean() for i in range(4)]
    assert loss.item() == pytest.approx(torch.stack(each).mean().item(), rel=1e-5)
    assert numbers.keys() == {"huber"} and numbers["huber"] == loss


def test_masks_and_min_snr_weigh_it_as_they_weigh_the_square():
    weight = torch.rand(4, 1, 3, 3, generator=torch.Generator().manual_seed(1))
    huber = Huber(0.1, "exponential")
    square, (loss, _) = losses(huber, weight=weight, min_snr=5.0)
    w = CHAIN.snr(T).clamp(max=5) / CHAIN.snr(T)
    expected = (w * (weight * huber.loss(square, T, CHAIN)).flatten(1).mean(1)).mean()
    assert loss.item() == pytest.approx(expected.item(), rel=1e-5)


def test_none_is_the_squared_error():
    assert Denoising().robust is None and Denoising(huber=0.2, huber_schedule="constant").robust == (0.2, "constant")
    square, (loss, numbers) = losses(None)
    assert loss.item() == pytest.approx(square.mean().item(), rel=1e-6) and numbers.keys() == {"mse"}

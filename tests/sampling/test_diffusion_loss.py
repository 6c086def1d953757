"""The training objective in literal numbers."""

import math

import pytest
import torch

from sampling import Schedule, diffusion_loss
from sampling.loss import discretized_nll, gaussian_kl, min_snr_weight, variational_bits


def batch(t, schedule, channels=4):
    """x0, eps, x_t, t with eps of +-1 only: its mean square is 1 exactly, as in expectation."""
    torch.manual_seed(0)
    x0 = torch.randn(len(t), channels, 8, 8, dtype=torch.float64)
    eps = torch.randn_like(x0).sign()
    t = torch.tensor(list(t))
    return x0, eps, schedule.add_noise(x0, eps, t), t


def test_variational_bits_of_a_zero_output():
    schedule = Schedule.linear()
    x0, _, x_t, t = batch([1, 10, 100, 500, 999], schedule)
    bits = variational_bits(torch.zeros(5, 8, 8, 8, dtype=torch.float64), x0, x_t, t, schedule)
    assert bits.tolist() == pytest.approx([0.63271, 0.10778, 0.014582, 0.0079523, 0.014722], rel=1e-4)


def test_variational_bits_of_a_zero_output_over_the_chain():
    schedule = Schedule.linear()
    x0, _, x_t, t = batch(range(1, 1000), schedule)
    out = torch.zeros(999, 8, 8, 8, dtype=torch.float64)
    assert variational_bits(out, x0, x_t, t, schedule).mean().item() == pytest.approx(0.014164, rel=1e-4)


def test_loss_of_a_zero_output():
    schedule = Schedule.linear()
    x0, eps, x_t, t = batch([1, 999], schedule)
    loss, numbers = diffusion_loss(torch.zeros(2, 8, 8, 8), x0, eps, x_t, t, schedule)
    assert numbers["mse"].item() == pytest.approx(1)
    assert numbers["bits"].item() == pytest.approx((0.63271 + 0.014722) / 2, rel=1e-4)
    assert loss.item() == pytest.approx(numbers["mse"].item() + numbers["bits"].item())


def test_first_step_takes_the_discretised_likelihood():
    schedule = Schedule.linear()
    x0, eps, x_t, t = batch([0], schedule)
    bits = variational_bits(torch.cat([eps, torch.ones_like(eps)], 1), x0.clamp(-0.9, 0.9), x_t, t, schedule)
    x0_hat = schedule.eps_and_x0_at(eps, x_t, t)[1]
    nll = discretized_nll(x0.clamp(-0.9, 0.9), x0_hat, torch.full_like(x0, math.log(1e-4)))  # beta_0 = 1e-4
    assert bits.item() == pytest.approx(nll.mean().item() / math.log(2))


def test_only_the_variance_learns_from_the_variational_term():
    schedule = Schedule.linear()
    x0, _, x_t, t = batch([0, 3, 500], schedule)
    out = torch.randn(3, 8, 8, 8, dtype=torch.float64, requires_grad=True)
    variational_bits(out, x0, x_t, t, schedule).sum().backward()
    assert out.grad[:, :4].abs().max() == 0
    assert (out.grad[:, 4:].flatten(1).abs().amax(1) > 0).all() and out.grad.isfinite().all()


@pytest.mark.parametrize("prediction", ["eps", "v", "x0"])
def test_perfect_prediction_has_no_error(prediction):
    schedule = Schedule.linear(prediction=prediction)
    x0, eps, x_t, t = batch([5, 800], schedule)
    loss, numbers = diffusion_loss(schedule.target(x0, eps, t), x0, eps, x_t, t, schedule)
    assert loss.item() == 0 and set(numbers) == {"mse"}


def test_true_posterior_costs_no_bits():
    schedule = Schedule.linear()
    x0, eps, x_t, t = batch([2, 700], schedule)
    bits = variational_bits(torch.cat([eps, torch.full_like(eps, -1)], 1), x0, x_t, t, schedule)
    assert bits.tolist() == pytest.approx([0, 0], abs=1e-9)


def test_min_snr_weights_of_stable_diffusion():
    schedule = Schedule.scaled_linear()
    weights = min_snr_weight(schedule.snr(torch.arange(1000)), 5.0, "eps")
    assert weights[[0, 100]].tolist() == pytest.approx([0.00425362, 0.59144344], rel=1e-5)
    assert (weights == 1).nonzero()[0].item() == 147


@pytest.mark.parametrize("prediction, expected", [("eps", [5 / 9, 1]), ("v", [0.5, 0.8]), ("x0", [5, 4])])
def test_min_snr_in_literal_numbers(prediction, expected):
    assert min_snr_weight(torch.tensor([9.0, 4.0]), 5.0, prediction).tolist() == pytest.approx(expected)


def test_min_snr_says_the_same_error_in_each_language():
    """The x0 error of one prediction, weighted, is one number whatever the network predicts."""
    losses = []
    for prediction in ("eps", "v", "x0"):
        schedule = Schedule.linear(prediction=prediction)
        x0, eps, x_t, t = batch([50, 300, 900], schedule)
        alpha, sigma = schedule.alpha_sigma(t, x_t)
        wrong_x0 = x0 + 0.01
        out = schedule.target(wrong_x0, (x_t - alpha * wrong_x0) / sigma, t)
        losses.append(diffusion_loss(out, x0, eps, x_t, t, schedule, min_snr=5.0)[0].item())
    assert losses[1:] == pytest.approx(losses[:1] * 2, rel=1e-5)


def test_min_snr_weighs_samples_and_leaves_the_logged_error_alone():
    schedule = Schedule(torch.tensor([0.9, 0.5], dtype=torch.float64))  # snr 9 and 1
    x0 = torch.zeros(2, 1, 2, 2)
    out, t = torch.ones_like(x0), torch.tensor([0, 1])
    loss, numbers = diffusion_loss(out, x0, x0, x0, t, schedule, min_snr=5.0)
    assert numbers["mse"].item() == 1
    assert loss.item() == pytest.approx((5 / 9 + 1) / 2)


def test_a_weight_map_multiplies_the_squared_error():
    schedule = Schedule.linear()
    x0 = torch.zeros(1, 2, 2, 2)
    out = torch.tensor([1.0, 2, 3, 4]).view(1, 1, 2, 2).expand(1, 2, 2, 2)
    mask = torch.tensor([2.0, 0, 0, 1]).view(1, 1, 2, 2)
    loss, _ = diffusion_loss(out, x0, x0, x0, torch.tensor([9]), schedule, weight=mask)
    assert loss.item() == pytest.approx((2 * 1 + 16) / 4)
    with pytest.raises(ValueError, match=r"shape \(1, 1, 4, 4\) does not fit latents of \(1, 2, 2, 2\)"):
        diffusion_loss(out, x0, x0, x0, torch.tensor([9]), schedule, weight=torch.ones(1, 1, 4, 4))


def test_half_precision_output_is_compared_in_float32():
    schedule = Schedule.linear()
    x0 = torch.zeros(1, 4, 2, 2)
    eps = torch.full_like(x0, 1 + 2**-10)  # bfloat16 would round this to 1
    loss, _ = diffusion_loss(torch.ones(1, 4, 2, 2, dtype=torch.bfloat16), x0, eps, x0, torch.tensor([9]), schedule)
    assert loss.dtype == torch.float32 and loss.item() == pytest.approx(2**-20)
    halves = [torch.ones(1, 4, 2, 2, dtype=torch.bfloat16)] * 4
    assert diffusion_loss(*halves, torch.tensor([9]), schedule)[0].dtype == torch.float32


def test_gaussian_kl():
    zero = torch.tensor(0.0)
    assert gaussian_kl(zero, zero, zero, zero) == 0
    p, q = torch.distributions.Normal(0.3, 0.5), torch.distributions.Normal(-0.2, 2.0)
    logs = [2 * d.stddev.log() for d in (p, q)]
    expected = torch.distributions.kl_divergence(p, q)
    torch.testing.assert_close(gaussian_kl(p.mean, logs[0], q.mean, logs[1]), expected)


def test_discretised_masses_sum_to_one():
    bins = torch.linspace(-1, 1, 256, dtype=torch.float64)
    for mean, log_var in [(0.1, -4.0), (-0.95, -1.0), (1.2, -3.0)]:
        mass = torch.exp(-discretized_nll(bins, torch.full_like(bins, mean), torch.full_like(bins, log_var)))
        assert mass.sum().item() == pytest.approx(1, abs=1e-6)


def test_discretised_likelihood_has_a_floor():
    far = discretized_nll(torch.tensor([0.0]), torch.tensor([50.0]), torch.tensor([-9.0]))
    assert far.item() == pytest.approx(-math.log(1e-12))

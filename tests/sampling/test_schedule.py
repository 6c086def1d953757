"""The tables of the schedules, DiT's respacing, and the algebra between x_t, x0, eps and v."""

from dataclasses import replace

import pytest
import torch

from sampling import Schedule
from sampling.schedule import learned_log_variance
from weights.layouts.scheduler_json import ending_in_noise

SCHEDULES = [Schedule.linear, Schedule.scaled_linear, Schedule.cosine]


def test_linear_schedule_of_dit():
    alpha_bar = Schedule.linear().alpha_bar
    expected = [0.9999, 0.99978009, 0.0785872429, 4.0358298e-05]
    assert alpha_bar[[0, 1, 499, 999]].tolist() == pytest.approx(expected, rel=1e-7)


def test_scaled_linear_schedule_of_stable_diffusion():
    alpha_bar = Schedule.scaled_linear().alpha_bar
    assert alpha_bar[[0, 499, 999]].tolist() == pytest.approx([0.99915, 0.2776696505, 0.0046600985], rel=1e-7)


def test_cosine_schedule_follows_its_formula_until_the_cap():
    alpha_bar = Schedule.cosine().alpha_bar
    t = torch.tensor([1, 500, 990], dtype=torch.float64)
    f = torch.cos((t / 1000 + 0.008) / 1.008 * torch.pi / 2) ** 2
    f0 = torch.cos(torch.tensor(0.008 / 1.008 * torch.pi / 2, dtype=torch.float64)) ** 2
    torch.testing.assert_close(alpha_bar[[0, 499, 989]], f / f0)
    assert (alpha_bar[999] / alpha_bar[998]).item() == pytest.approx(0.001)


@pytest.mark.parametrize(
    "steps, first, last, count",
    [
        (250, [0, 4, 8, 12, 16, 20], [987, 991, 995, 999], 250),
        (100, [0, 10, 20], [979, 989, 999], 100),
        (50, [0, 20, 41, 61, 82, 102], [938, 958, 979, 999], 50),
        (25, [0, 42, 83, 125, 166, 208], [874, 916, 957, 999], 25),
        (10, [0, 111, 222, 333], [888, 999], 10),
        (3, [0, 500, 999], [0, 500, 999], 3),  # 499.5 goes to the even neighbour
        (75, [0, 14, 27, 40, 54], [986, 999], 75),  # 13.5 up, 40.5 down
        (2, [0, 999], [0, 999], 2),
    ],
)
def test_official_respacing(steps, first, last, count):
    t = Schedule.linear().timesteps(steps)
    assert t[: len(first)] == first and t[-len(last) :] == last and len(t) == count


def test_respacing_sums_the_stride():
    """10 * 49.95 is a half and would go to 500; the sum of ten strides lies a hair below it."""
    assert Schedule.linear().timesteps(21)[9:12] == [450, 499, 549]


def test_respacing_never_repeats_a_step():
    schedule = Schedule.linear()
    for steps in range(2, 1001):
        t = schedule.timesteps(steps)
        assert len(set(t)) == steps and t[0] == 0 and t[-1] == 999 and t == sorted(t)


@pytest.mark.parametrize("steps", [0, 1, 1001])
def test_respacing_refuses_impossible_counts(steps):
    with pytest.raises(ValueError, match=f"between 2 and 1000, found {steps}"):
        Schedule.linear().timesteps(steps)


def test_posterior_of_the_full_chain():
    chain = Schedule.linear().full
    variance = chain.posterior_variance
    assert variance[0] == 0
    assert variance[[1, 999]].tolist() == pytest.approx([5.4531877e-05, 0.0199999835], rel=1e-7)
    assert chain.log_posterior[:2].tolist() == pytest.approx([-9.81672514, -9.81672514], abs=1e-7)
    assert chain.log_beta[[0, 999]].tolist() == pytest.approx([-9.21034037, -3.91202301], abs=1e-7)
    assert (chain.mean_x0[0].item(), chain.mean_x[0].item()) == (1, 0)


def test_learned_variance_of_zero_is_the_midpoint():
    chain = Schedule.linear().full
    middle = learned_log_variance(torch.zeros(1000), chain.log_beta, chain.log_posterior)
    assert middle[500].item() == pytest.approx(-4.59962092, abs=1e-6)
    torch.testing.assert_close(learned_log_variance(1, chain.log_beta, chain.log_posterior), chain.log_beta)
    torch.testing.assert_close(learned_log_variance(-1, chain.log_beta, chain.log_posterior), chain.log_posterior)


def test_respaced_betas():
    beta = Schedule.linear().chain(250).beta
    assert beta[[0, 1, -1]].tolist() == pytest.approx([1e-4, 5.9906557e-04, 0.077519345], rel=1e-7)


def test_respaced_chain_keeps_alpha_bar():
    chain = Schedule.linear().chain([3, 40, 700])
    torch.testing.assert_close(torch.cumprod(1 - chain.beta, 0), Schedule.linear().alpha_bar[[3, 40, 700]])


def test_rows_of_a_chain_run_backward_in_python_numbers():
    rows = Schedule.linear().chain([3, 40, 700]).backward()
    assert [row.t for row in rows] == [700, 40, 3]
    assert [row.alpha_bar_prev for row in rows] == [rows[1].alpha_bar, rows[2].alpha_bar, 1.0]


@pytest.mark.parametrize("steps", [[], [5, 5], [5, 3], [-1, 3], [3, 1000]])
def test_chain_refuses_bad_lists(steps):
    with pytest.raises(ValueError, match="ascend within 0..999"):
        Schedule.linear().chain(steps)


@pytest.mark.parametrize("make", SCHEDULES)
@pytest.mark.parametrize("prediction", ["eps", "v", "x0"])
def test_a_perfect_prediction_gives_back_eps_and_x0(make, prediction):
    schedule = make(prediction=prediction)
    torch.manual_seed(0)
    x0, eps = torch.randn(2, 5, 4, 2, 2, dtype=torch.float64)
    t = torch.tensor([0, 1, 500, 998, 999])
    out = schedule.target(x0, eps, t)
    x = schedule.add_noise(x0, eps, t)
    for given in (out, torch.cat([out, torch.full_like(out, 7)], dim=1)):  # a variance half changes nothing
        eps_hat, x0_hat = schedule.eps_and_x0_at(given, x, t)
        torch.testing.assert_close(eps_hat, eps)
        torch.testing.assert_close(x0_hat, x0)


def test_v_in_literal_numbers():
    schedule = Schedule(torch.tensor([0.64], dtype=torch.float64), "v")
    t = torch.tensor([0])
    x0, eps = torch.full((1, 1, 1, 1), 10.0), torch.full((1, 1, 1, 1), 5.0)
    assert schedule.add_noise(x0, eps, t).item() == pytest.approx(11)  # 0.8 * 10 + 0.6 * 5
    assert schedule.target(x0, eps, t).item() == pytest.approx(-2)  # 0.8 * 5 - 0.6 * 10
    assert schedule.snr(t).item() == pytest.approx(0.64 / 0.36)


def test_half_precision_data_keep_exact_coefficients():
    schedule = Schedule.linear()
    x0 = torch.zeros(1, 1, 1, 1, dtype=torch.bfloat16)
    x = schedule.add_noise(x0, torch.ones_like(x0), torch.tensor([0]))
    assert x.dtype == torch.float32 and x.item() == pytest.approx(0.01)


def test_split_of_the_network_output():
    x = torch.zeros(1, 2, 1, 1)
    out = torch.arange(4.0).view(1, 4, 1, 1)
    prediction, v = Schedule.linear().split(out, x)
    assert prediction.flatten().tolist() == [0, 1] and v.flatten().tolist() == [2, 3]
    assert Schedule.linear().split(out[:, :2], x)[1] is None
    with pytest.raises(ValueError, match="returned 3 channels for latents of 2"):
        Schedule.linear().split(out[:, :3], x)


@pytest.mark.parametrize(
    "alpha_bar, message",
    [
        (torch.tensor([0.9, 0.5]), "float64"),
        (torch.ones(2, 2, dtype=torch.float64), "shape"),
        (torch.ones(0, dtype=torch.float64), "shape"),
        (torch.tensor([0.5, 0.9], dtype=torch.float64), "fall strictly"),
        (torch.tensor([0.5, 0.0], dtype=torch.float64), "between 0 and 1"),
        (torch.tensor([1.0, 0.5], dtype=torch.float64), "between 0 and 1"),
    ],
)
def test_schedule_refuses_bad_tables(alpha_bar, message):
    with pytest.raises(ValueError, match=message):
        Schedule(alpha_bar)


def test_schedule_refuses_an_unknown_spacing_and_steps_beyond_the_chain():
    alpha_bar = Schedule.linear().alpha_bar
    with pytest.raises(ValueError, match="linspace, leading, trailing and offset at least 0, found 'karras' and 0"):
        Schedule(alpha_bar, spacing="karras")
    with pytest.raises(ValueError, match="1000 steps with offset 1 would end at 1000, beyond 999"):
        Schedule(alpha_bar, spacing="leading", offset=1).timesteps(1000)


def test_schedule_refuses_an_unknown_prediction():
    with pytest.raises(ValueError, match="eps, v, x0, found 'epsilon'"):
        Schedule.linear(prediction="epsilon")


def test_the_three_spacings_in_literal_numbers():
    """Lin et al. 2024, table 2, and Stable Diffusion's offset of 1."""
    schedule = Schedule.linear()
    assert schedule.timesteps(5) == [0, 250, 500, 749, 999]
    assert replace(schedule, spacing="leading").timesteps(4) == [0, 250, 500, 750]
    assert replace(schedule, spacing="leading", offset=1).timesteps(4) == [1, 251, 501, 751]
    assert replace(schedule, spacing="trailing").timesteps(4) == [249, 499, 749, 999]


def test_a_chain_that_ends_in_noise_begins_as_before():
    plain = Schedule.scaled_linear(prediction="v")
    shifted = ending_in_noise(plain)
    assert shifted.alpha_bar[-1] == 0 and shifted.alpha_bar[0].item() == pytest.approx(plain.alpha_bar[0].item(), 1e-12)
    middle = plain.alpha_bar.sqrt()
    expected = (middle[500] - middle[-1]) * middle[0] / (middle[0] - middle[-1])
    assert shifted.alpha_bar[500].sqrt().item() == pytest.approx(expected.item(), 1e-12)

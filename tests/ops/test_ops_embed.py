"""The sinusoid's numbers, at step 500 with the official divisor 128."""

import pytest
import torch

from ops import timestep_embedding


def test_step_500():
    row = timestep_embedding(torch.tensor([500]), 256)[0]
    torch.testing.assert_close(row[:3], torch.tensor([-0.883849, 0.945943, 0.848515]), atol=2e-5, rtol=0)
    assert row[128].item() == pytest.approx(-0.467772, abs=2e-6)


def test_step_0_is_ones_then_zeros():
    row = timestep_embedding(torch.tensor([0]), 8)[0]
    assert row.tolist() == [1, 1, 1, 1, 0, 0, 0, 0]


def test_slowest_frequency_is_one_over_max_period_with_divisor_one_less():
    row = timestep_embedding(torch.tensor([7.0]), 8, max_period=100, divisor=3)[0]
    assert row[7].item() == pytest.approx(0.0699428, abs=1e-6)  # sin(7 / 100)


def test_float32_and_fractional_steps():
    out = timestep_embedding(torch.tensor([0.5, 999.5]), 16)
    assert out.dtype == torch.float32 and out.shape == (2, 16)
    assert out[0, 0].item() == pytest.approx(0.8775826, abs=1e-6)  # cos(0.5)


def test_bfloat16_weights_do_not_blur_neighbouring_steps():
    a, b = timestep_embedding(torch.tensor([998, 999]), 256)
    assert (a - b).abs().max() > 0.5


def test_odd_width_is_refused():
    with pytest.raises(ValueError, match="even width, found 7"):
        timestep_embedding(torch.tensor([1]), 7)

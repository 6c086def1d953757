"""What every recipe has: a held-out loss with noise that stays, and the settings that an adapter file keeps."""

import pytest
import torch

from recipes.job import HeldOut, header_settings
from recipes.settings import check


def test_the_held_out_loss_is_the_mean_over_images_with_noise_that_stays():
    numbers = torch.arange(7.0)

    def batch(index, generator):
        return {"x": numbers[index] + torch.rand(len(index), generator=generator)}

    def loss(part, generator, progress):
        return part["x"].mean(), {}

    held_out = HeldOut(batch, 7)
    value = held_out.loss(loss, torch.device("cpu"), size=3)  # batches of 3, 3 and 1 weigh by their images
    noise = torch.cat([torch.rand(min(3, 7 - i), generator=torch.Generator().manual_seed(i)) for i in (0, 3, 6)])
    assert value == pytest.approx((numbers + noise).mean().item())
    torch.rand(5)  # other randomness does not matter
    assert value == held_out.loss(loss, torch.device("cpu"), size=3)


def kept(**values):
    return header_settings(check(values))


def test_the_file_keeps_what_the_result_depends_on():
    assert kept(out="a", resume=True) == kept(out="b")
    assert kept(seed=1) != kept(seed=2)


def test_what_decides_nothing_is_not_in_the_file():
    assert "keep" not in kept() and "stop_corrupted" not in kept()
    assert kept(keep="best") == kept() | {"keep": "best", "stop_corrupted": False, "features": ""}
    assert kept(stop_corrupted=True) == kept() | {"keep": "last", "stop_corrupted": True, "features": ""}

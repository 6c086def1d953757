"""The device by name, and the precision that follows it."""

import pytest
import torch

from ops.device import autocast, bf16, choose_device, has_cpu_bf16


def test_a_device_has_its_name_and_auto_is_one_that_is_there():
    assert choose_device("cpu") == torch.device("cpu")
    torch.empty(1, device=choose_device("auto"))


@pytest.mark.parametrize("name", ["xyz", "cuda:x", ""])
def test_an_unknown_device_is_one_sentence(name):
    with pytest.raises(ValueError, match=f"device must be auto, .* found '{name}'"):
        choose_device(name)


def test_precision_follows_the_device_and_refuses_other_words():
    assert bf16("bf16", torch.device("cpu")) and not bf16("fp32", torch.device("cpu"))
    assert bf16("auto", torch.device("cpu")) == has_cpu_bf16()
    with pytest.raises(ValueError, match="fp16"):
        bf16("fp16", torch.device("cpu"))


@pytest.mark.parametrize(("precision", "dtype"), [("bf16", torch.bfloat16), ("fp32", torch.float32)])
def test_autocast_multiplies_in_the_precision(precision, dtype):
    x = torch.ones(2, 2)
    with autocast(precision, torch.device("cpu")):
        assert (x @ x).dtype == dtype

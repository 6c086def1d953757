"""The sides on small models; and "full size" is the size of the published files."""

from dataclasses import replace

import pytest
import torch

from bench.sides import ours, peers, xl
from bench.sides.commands import sample_dit, sample_sd
from bench.sizes import FULL, TINY
from bench.timing.interleave import Side
from dit import DiT
from unet import VAE, TextEncoder, UNet, VAEConfig
from unet.sizes import TEXT_ENCODERS, UNETS


def count(model):
    return sum(parameter.numel() for parameter in model.parameters())


def test_full_size_is_that_of_the_published_files():
    with torch.device("meta"):
        models = [
            DiT.from_name(FULL["model"], image_size=FULL["side"] // 2, depth=FULL["depth"]),
            UNet(replace(UNETS["SD-1"], **FULL["unet"])),
            TextEncoder(replace(TEXT_ENCODERS["CLIP-L"], **FULL["text"])),
            VAE(VAEConfig(**ours.vae_fields(FULL))),
            UNet(replace(UNETS["SDXL"], **FULL["xl"])),
        ]
    assert [count(model) for model in models] == [675_129_632, 859_520_964, 123_060_480, 83_653_863, 2_567_463_684]
    assert len(models[0].state_dict()) == 292


@pytest.mark.parametrize("size", [FULL, TINY], ids=["full", "tiny"])
def test_the_peers_xl_is_as_large_as_ours(size):
    diffusers = pytest.importorskip("diffusers")
    with torch.device("meta"):
        theirs, own = diffusers.UNet2DConditionModel(**peers.xl_shape(size)), UNet(replace(UNETS["SDXL"], **size["xl"]))
    assert count(theirs) == count(own)


@pytest.mark.parametrize("make", [xl.guided, xl.lora, ours.sd_full, ours.read_sd])
def test_a_step_of_ours(make):
    make(TINY, "cpu")()


@pytest.mark.parametrize("name", ["xl_guided", "xl_lora", "sd_full"])
def test_a_step_of_the_peers(name):
    pytest.importorskip("peft")
    side = Side(f"peers:{name}", TINY, "cpu")  # a process of its own: it makes torch's layers without numbers
    assert side.step()["wall"] > 0
    side.end()


@pytest.mark.parametrize("make", [sample_dit, sample_sd])
def test_the_commands_of_a_row_run(make):
    """train.py before sample.py; the peak is that of a process which imported torch."""
    assert make(TINY, "cpu")()["peak"] > 0.1

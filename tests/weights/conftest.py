"""Tiny models with random weights everywhere, because fresh ones are full of zeros that hide mistakes."""

import pytest
import torch
from safetensors.torch import load_file

import weights
from dit import DiT, DiTConfig
from unet import VAE, UNet, UNetConfig, VAEConfig
from unet.text.encoder import TextConfig, TextEncoder
from unet.text.tokenizer import Tokenizer
from weights import StableDiffusion, sd_schedule


def randomised(model, seed):
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if name != "pos_embed":
                parameter.copy_(0.05 * torch.randn(parameter.shape, generator=generator))
    return model.eval()


@pytest.fixture
def tiny_dit():
    return randomised(DiT(DiTConfig(depth=2, width=48, heads=4, patch=2, input_size=8, num_classes=10)), 0)


@pytest.fixture
def tiny_vae():
    return randomised(VAE(VAEConfig(channels=(16, 32, 32), layers=1, groups=8)), 1)


SD_KNOWN = {  # what the shapes of the two tiny Stable Diffusions do not tell
    "SD 1": {"unet": {"heads": (4, 4, 4, 4), "groups": 8}, "text": {"heads": 4}, "vae": {"groups": 8}},
    "SD 2": {"unet": {"heads": (2, 4, 6, 6), "groups": 8, "upcast": True}, "text": {"heads": 4}, "vae": {"groups": 8}},
}


def make_sd(second: bool) -> StableDiffusion:
    """All names of Stable Diffusion's UNet (686), VAE (248) and of a text encoder with three layers."""
    known = SD_KNOWN["SD 2" if second else "SD 1"]
    words = Tokenizer.train(["a photo of a crack", "a photo of a screw"] * 3, 600)
    words = Tokenizer(words.vocab, words.merges, pad="!") if second else words
    unet = UNetConfig(channels=(32, 64, 96, 96), text_width=32, linear=second, input_size=16, **known["unet"])
    text = TextConfig(len(words), width=32, layers=3, heads=4, activation="gelu" if second else "quick_gelu")
    vae = VAEConfig(channels=(16, 32, 64, 64), layers=2, groups=8)
    models = [randomised(UNet(unet), 0), randomised(TextEncoder(text), 1), randomised(VAE(vae), 2)]
    return StableDiffusion(models[0], models[1], words, models[2], sd_schedule("v" if second else "eps"))


@pytest.fixture(scope="session", params=SD_KNOWN)
def sd(request):
    """(a tiny Stable Diffusion that no test changes, options that a single file of it needs)."""
    return make_sd(request.param == "SD 2"), SD_KNOWN[request.param]


@pytest.fixture(scope="session")
def sd1():
    return make_sd(False), SD_KNOWN["SD 1"]


@pytest.fixture(scope="session")
def sd2():
    return make_sd(True), SD_KNOWN["SD 2"]


def in_one_file(pipeline, folder):
    """(tensors of `pipeline` in a single file, folder of the tokenizer that it lacks)."""
    weights.save_sd(pipeline, folder / "sd.safetensors", "sd-compvis")
    pipeline.tokenizer.save(folder / "words")
    return load_file(folder / "sd.safetensors"), folder / "words"


@pytest.fixture(scope="session")
def single1(sd1, tmp_path_factory):
    return in_one_file(sd1[0], tmp_path_factory.mktemp("single1"))


@pytest.fixture(scope="session")
def single2(sd2, tmp_path_factory):
    return in_one_file(sd2[0], tmp_path_factory.mktemp("single2"))


@pytest.fixture
def read_one(tmp_path):
    """Writes tensors as sd.ckpt and reads them as a whole Stable Diffusion."""

    def read(tensors, words, known, **options):
        torch.save(tensors, tmp_path / "sd.ckpt")
        return weights.load_sd(tmp_path / "sd.ckpt", tokenizer=words, **(known | options))

    return read

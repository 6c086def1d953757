"""Stand-ins for images and their latents, for tests that look at batches and class tables."""

import torch

import weights
from data import ImageSet
from data.latents import LatentCache
from unet import VAE, TextConfig, TextEncoder, TextPair, Tokenizer, TokenizerPair, UNet, UNetConfig, VAEConfig

NULL = 9  # the null row


def encoded(count=4, variants=2, logvar=-60.0):
    """Means that tell image and variant, 10 n + v, and next to no variance."""
    mean = 10.0 * torch.arange(count)[:, None] + torch.arange(variants)  # (N, V)
    mean = mean[..., None, None, None].expand(count, variants, 4, 4, 4).clone()  # (N, V, c, h, w)
    return LatentCache(mean, torch.full_like(mean, logvar), "", (), False)


def labels(count=4):
    return torch.arange(count) % 3


def seeded(seed=0):
    return torch.Generator().manual_seed(seed)


def images(classes):
    """Two black images of 16 pixels of each class."""
    of = torch.arange(len(classes)).repeat_interleave(2)
    return ImageSet(torch.zeros(len(of), 16, 16, 3, dtype=torch.uint8).numpy(), of, classes, [str(i) for i in of])


def tiny_xl(length=77, input_size=16, levels=(16, 16, 32)):
    """A Stable Diffusion XL in small: no text at level 0, deeper transformers below, two text encoders, all random."""
    torch.manual_seed(0)
    first = Tokenizer.train(["a photo of a flawless pill", "a photo of a hazelnut with a hole"] * 5, 560, length=length)
    tokenizer = TokenizerPair(first, Tokenizer(first.vocab, first.merges, "!", length))
    shape = dict(vocab_size=len(first), layers=3, max_length=length, skip=1, norm=False)
    one = TextEncoder(TextConfig(width=16, heads=4, **shape))
    two = TextEncoder(TextConfig(width=32, heads=4, activation="gelu", projection=24, **shape))
    levels_of_unet = dict(text=(0, 1, 2), channels=(16, 32, 32), heads=(2, 2, 4), groups=8)
    unet = UNet(UNetConfig(**levels_of_unet, text_width=48, pooled=24, linear=True, input_size=input_size))
    vae = VAE(VAEConfig(channels=levels, layers=1, groups=8, scaling_factor=0.13025))
    for model in (unet, vae, one, two):
        for parameter in model.parameters():
            torch.nn.init.normal_(parameter, std=0.1)
    text = TextPair(one, two)
    for model in (unet, vae, text):
        model.eval()
    return weights.StableDiffusion(unet, text, tokenizer, vae, weights.sd_schedule())

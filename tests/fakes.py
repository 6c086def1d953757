"""Stand-ins for images and their latents, for tests that look at batches and class tables."""

import torch

from data import ImageSet
from data.latents import LatentCache

NULL = 9  # the null row


def encoded(count=4, variants=2, logvar=-60.0):
    """Means that tell image and variant, 10 n + v, and next to no variance."""
    mean = 10.0 * torch.arange(count)[:, None] + torch.arange(variants)  # (N, V)
    mean = mean[..., None, None, None].expand(count, variants, 4, 4, 4).clone()  # (N, V, c, h, w)
    return LatentCache(mean, torch.full_like(mean, logvar), "", None, False)


def labels(count=4):
    return torch.arange(count) % 3


def seeded(seed=0):
    return torch.Generator().manual_seed(seed)


def images(classes):
    """Two black images of 16 pixels of each class."""
    of = torch.arange(len(classes)).repeat_interleave(2)
    return ImageSet(torch.zeros(len(of), 16, 16, 3, dtype=torch.uint8).numpy(), of, classes, [str(i) for i in of])

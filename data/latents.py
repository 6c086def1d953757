"""Latents of every image in every variant, encoded once: z = mean + exp(logvar / 2) eps, eps ~ N(0, 1).

The file holds the VAE's mean and log-variance and not a sample, so that every step samples its own latent, as training
on images would. The file's name is the SHA-256 of everything that its numbers depend on (pixels, variants, VAE,
precision): a changed image, crop or VAE has another name, so nothing stale is ever read.
"""

import hashlib
import shutil
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import safetensors
import torch
from safetensors.torch import save
from torch import Tensor

from data.output.atomic import write_atomic
from data.transforms import Variant, apply_variant, to_tensor

FORMAT = "graft latents 1"  # part of the name: raise it when the meaning of a variant or of the file changes
Encoder = Callable[[Tensor], tuple[Tensor, Tensor]]  # images (B, 3, S, S) -> mean, logvar (B, c, h, w)


class LatentCache(NamedTuple):
    """Latents of N images in V variants, on the CPU and unscaled."""

    mean: Tensor  # (N, V, c, h, w)
    logvar: Tensor  # (N, V, c, h, w)
    name: str  # content address
    path: Path | None  # its file; None in memory only
    reused: bool  # read from that file and not encoded


def encode_latents(
    images: np.ndarray | Sequence[np.ndarray],
    variants: Sequence[Variant],
    encode: Encoder,
    key: str,
    folder: str | Path | None = None,
    batch: int = 16,
    dtype: torch.dtype = torch.float32,
) -> LatentCache:
    """Latents of N images (S, S, 3) uint8 in V variants: encoded, or read from `folder` if they are in it.

    encode  (B, 3, S, S) float32 in [-1, 1] on the CPU -> (mean, logvar), each (B, c, h, w), on any device
    key     fingerprint of the encoder's weights: another VAE must have another key
    dtype   of what is kept: float32, or float16 for half the size

    Raises ValueError for images of unequal size, a latent that is not finite (with its image and variant), and a disk
    without enough room. A damaged file costs one line of notice and is encoded again.
    """
    if not variants:
        raise ValueError("no variants to encode: the plain image is Variant()")
    pixels = _stack(images, variants)
    if dtype not in (torch.float32, torch.float16):
        raise ValueError(f"latents are kept as float32 or float16; found {dtype}")
    name = address(pixels, variants, key, dtype)
    path = None if folder is None else Path(folder) / f"latents-{name[:32]}.safetensors"
    if path is not None and path.exists():
        try:
            return LatentCache(*_load(path, name), name, path, True)
        except ValueError as error:
            print(f"latent cache {path} is damaged ({error}): encoding again")
    mean, logvar = _encode(pixels, variants, encode, batch, dtype, path)
    if path is not None:
        metadata = {"name": name, "sha256": _digest(mean, logvar)}
        write_atomic(path, save({"mean": mean, "logvar": logvar}, metadata))
    return LatentCache(mean, logvar, name, path, False)


def sample_posterior(
    cache: LatentCache, index: int | Tensor, variant: int | Tensor, generator: torch.Generator | None = None
) -> Tensor:
    """z = mean + exp(logvar / 2) eps of images and variants, float32: (c, h, w), or (B, c, h, w) for indices (B,).

    The generator is on the CPU.
    """
    mean, logvar = cache.mean[index, variant].float(), cache.logvar[index, variant].float()
    return mean + (0.5 * logvar).exp() * torch.randn(mean.shape, generator=generator)


def address(pixels: np.ndarray, variants: Sequence[Variant], key: str, dtype: torch.dtype) -> str:
    """SHA-256 (64 hex digits) of format, encoder key, precision, variants, size and the bytes of every image."""
    digest = hashlib.sha256()
    settings = (FORMAT, key, str(dtype), [(bool(h), bool(v), float(degrees)) for h, v, degrees in variants])
    digest.update(repr((*settings, pixels.shape)).encode())
    for image in pixels:
        digest.update(hashlib.sha256(np.ascontiguousarray(image)).digest())
    return digest.hexdigest()


def _stack(images: np.ndarray | Sequence[np.ndarray], variants: Sequence[Variant]) -> np.ndarray:
    if len(images) == 0:
        raise ValueError("no images to encode")
    for i, image in enumerate(images):
        if image.dtype != np.uint8 or image.shape != images[0].shape or image.ndim != 3 or image.shape[2] != 3:
            raise ValueError(
                f"expected uint8 images of one size (S, S, 3): image 0 is {images[0].dtype} "
                f"{images[0].shape}, image {i} is {image.dtype} {image.shape}"
            )
    if images[0].shape[0] != images[0].shape[1] and any(variant.degrees % 180 for variant in variants):
        raise ValueError(f"images must be square, since a quarter turn swaps the sides; found {images[0].shape}")
    return np.asarray(images)  # (N, H, W, 3)


@torch.no_grad()
def _encode(
    pixels: np.ndarray, variants: Sequence[Variant], encode: Encoder, batch: int, dtype: torch.dtype, path: Path | None
) -> tuple[Tensor, Tensor]:
    """(mean, logvar), each (N, V, c, h, w), in batches, images outermost. The first batch shows the size on disk."""
    pairs = [(n, v) for n in range(len(pixels)) for v in range(len(variants))]
    means, logvars = [], []
    for start in range(0, len(pairs), batch):
        chosen = pairs[start : start + batch]
        x = torch.stack([apply_variant(to_tensor(pixels[n]), variants[v]) for n, v in chosen])  # (B, 3, S, S)
        mean, logvar = (z.detach().to("cpu", dtype) for z in encode(x))  # (B, c, h, w)
        finite = (mean.isfinite() & logvar.isfinite()).flatten(1).all(1)
        if not finite.all():
            n, v = chosen[int((~finite).nonzero()[0])]
            raise ValueError(f"the latent of image {n} in {variants[v]} is not finite in {dtype}")
        if path is not None and start == 0:
            _check_disk(path.parent, 2 * mean[0].nbytes * len(pairs))
        means.append(mean)
        logvars.append(logvar)
    shape = (len(pixels), len(variants), *means[0].shape[1:])
    return torch.cat(means).reshape(shape), torch.cat(logvars).reshape(shape)  # (N, V, c, h, w)


def _check_disk(folder: Path, size: int) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    free = shutil.disk_usage(folder).free
    if free < 2 * size:  # twice: the old file, if damaged, stays until the new one is whole
        raise ValueError(
            f"the latent cache needs {size / 1e6:.1f} MB, asks for twice that, and {folder} has "
            f"{free / 1e6:.1f} MB free"
        )


def _load(path: Path, name: str) -> tuple[Tensor, Tensor]:
    """Read back and check; any damage, one flipped bit included, is a ValueError."""
    try:
        with safetensors.safe_open(path, "pt") as file:
            metadata = file.metadata() or {}
            mean, logvar = file.get_tensor("mean"), file.get_tensor("logvar")
    except (safetensors.SafetensorError, OSError) as error:
        raise ValueError(str(error)) from error
    if metadata.get("name") != name:
        raise ValueError("it was written for other contents")
    if metadata.get("sha256") != _digest(mean, logvar):
        raise ValueError("its checksum does not match")
    return mean, logvar


def _digest(mean: Tensor, logvar: Tensor) -> str:
    return hashlib.sha256(mean.numpy().tobytes() + logvar.numpy().tobytes()).hexdigest()

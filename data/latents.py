"""Latents of every image in every variant, encoded once: z = mean + exp(logvar / 2) eps, eps ~ N(0, 1).

The files hold the VAE's mean and log-variance and not a sample, so that every step samples its own latent, as training
on images would. They are shards (shards.py) of a few images, and the name of a shard is the SHA-256 of everything that
its numbers depend on (pixels, variants, VAE, precision): a changed image, crop or VAE has another name, so that nothing
stale is ever read. An encoding that was interrupted goes on, and processes with one folder share the work. Images and
latents are in memory for the time of one shard.
"""

import hashlib
import shutil
import time
from collections.abc import Callable, Sequence
from concurrent.futures import Executor
from functools import partial
from itertools import islice
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor
from tqdm import tqdm

from data.lazy import Lazy, in_order, row_digests, workers
from data.shards import Rows, check_shard, claimed, mapped, remove_dead_claims, write_shard
from data.transforms import Variant, apply_variant, to_tensor

FORMAT = "graft latents 1"  # part of the name: raise it when the meaning of a variant or of the file changes
SHARD = 2**23  # pixels, in all variants, behind one shard: 4 MB of Stable Diffusion's latents in float32
WHOLE = 16  # a shard has a multiple of so many images, so that batches of as many cross no border
MANY = 2_000  # latents of which the progress is shown
WAIT = 0.2  # seconds between two looks for a shard that another process makes
ARRAYS = ("mean", "logvar")
Encoder = Callable[[Tensor], tuple[Tensor, Tensor]]  # images (B, 3, S, S) -> mean, logvar (B, c, h, w)


class LatentCache(NamedTuple):
    """Latents of N images in V variants, on the CPU and unscaled: tensors, or what is read as if it were one."""

    mean: Tensor | Rows  # (N, V, c, h, w)
    logvar: Tensor | Rows  # (N, V, c, h, w)
    name: str  # content address
    files: tuple[Path, ...]  # its shards; none in memory only
    reused: bool  # read from these files and not encoded


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
    without enough room. A damaged shard costs one line of notice and is encoded again.
    """
    if not variants:
        raise ValueError("no variants to encode: the plain image is Variant()")
    pixels = _stack(images, variants)
    if dtype not in (torch.float32, torch.float16):
        raise ValueError(f"latents are kept as float32 or float16; found {dtype}")
    count, digests = len(pixels), row_digests(pixels)  # (N, 32)

    def address_of(part: range) -> str:
        return address(digests[part.start : part.stop], pixels.shape[1:], variants, key, dtype)

    with tqdm(total=count * len(variants), desc="encoding", disable=count * len(variants) < MANY) as bar:
        if folder is None:
            everything = range(count)
            encoded = _encode(pixels, everything, variants, encode, batch, dtype, bar.update)
            return LatentCache(*encoded, address_of(everything), (), False)
        size = max(1, SHARD // (pixels.shape[1] * pixels.shape[2] * len(variants) * WHOLE)) * WHOLE
        parts = [range(first, min(first + size, count)) for first in range(0, count, size)]
        names = [address_of(part) for part in parts]
        files = tuple(Path(folder) / f"latents-{name[:32]}.safetensors" for name in names)
        missing = [i for i, (file, name) in enumerate(zip(files, names)) if not _is_whole(file, name)]
        left = sum(len(parts[i]) for i in missing)
        bar.update((count - left) * len(variants))
        with workers(left if isinstance(pixels, Lazy) else 0) as pool:
            encoded = partial(_encode, pixels, variants=variants, encode=encode, batch=batch, dtype=dtype)
            encoded = partial(encoded, advance=bar.update, pool=pool)
            _fill(missing, files, names, parts, encoded)
    remove_dead_claims(folder)
    shape = (count, *mapped(files[0], ARRAYS[0]).shape[1:])
    name = names[0] if len(names) == 1 else hashlib.sha256("".join(names).encode()).hexdigest()
    return LatentCache(*(Rows(files, array, size, shape, dtype) for array in ARRAYS), name, files, not missing)


def _is_whole(path: Path, name: str, tell: Callable[[str], object] = print) -> bool:
    """Whether the shard is there and not damaged, which is told."""
    if not path.exists():
        return False
    try:
        check_shard(path, name, ARRAYS)
    except ValueError as error:
        tell(f"latent cache {path} is damaged ({error}): encoding again")
        return False
    return True


def _fill(missing: list[int], files: Sequence[Path], names: list[str], parts: list[range], encoded: Callable) -> None:
    """Encode the shards that no other process encodes meanwhile, until all are there."""
    while missing:
        later = []
        for i in missing:
            with claimed(files[i]) as mine:
                if not mine:
                    later.append(i)
                elif not _is_whole(files[i], names[i], str):
                    write_shard(files[i], dict(zip(ARRAYS, encoded(parts[i], folder=files[i].parent))), names[i])
        missing = later
        if missing:
            time.sleep(WAIT)


def sample_posterior(
    cache: LatentCache, index: int | Tensor, variant: int | Tensor, generator: torch.Generator | None = None
) -> Tensor:
    """z = mean + exp(logvar / 2) eps of images and variants, float32: (c, h, w), or (B, c, h, w) for indices (B,).

    The generator is on the CPU.
    """
    mean, logvar = cache.mean[index, variant].float(), cache.logvar[index, variant].float()
    return mean + (0.5 * logvar).exp() * torch.randn(mean.shape, generator=generator)


def address(digests: np.ndarray, shape: tuple, variants: Sequence[Variant], key: str, dtype: torch.dtype) -> str:
    """SHA-256 (64 hex digits) of format, encoder key, precision, variants, and of the images' shape and digests."""
    settings = (FORMAT, key, str(dtype), [(bool(h), bool(v), float(degrees)) for h, v, degrees in variants])
    total = hashlib.sha256(repr((*settings, (len(digests), *shape))).encode())
    total.update(np.ascontiguousarray(digests))
    return total.hexdigest()


def _stack(images: np.ndarray | Lazy | Sequence[np.ndarray], variants: Sequence[Variant]) -> np.ndarray | Lazy:
    if len(images) == 0:
        raise ValueError("no images to encode")
    for i, image in enumerate([images] if isinstance(images, Lazy) else images):
        expected = images.shape[1:] if isinstance(images, Lazy) else images[0].shape
        shape = image.shape[-3:]
        if image.dtype != np.uint8 or shape != expected or len(shape) != 3 or shape[2] != 3:
            raise ValueError(
                f"expected uint8 images of one size (S, S, 3): image 0 is {images[0].dtype} "
                f"{images[0].shape}, image {i} is {image.dtype} {image.shape}"
            )
    if expected[0] != expected[1] and any(variant.degrees % 180 for variant in variants):
        raise ValueError(f"images must be square, since a quarter turn swaps the sides; found {expected}")
    return images if isinstance(images, Lazy) else np.asarray(images)  # (N, H, W, 3)


@torch.no_grad()
def _encode(
    pixels: np.ndarray | Lazy,
    part: range,
    variants: Sequence[Variant],
    encode: Encoder,
    batch: int,
    dtype: torch.dtype,
    advance: Callable[[int], object],
    folder: Path | None = None,
    pool: Executor | None = None,
) -> tuple[Tensor, Tensor]:
    """(mean, logvar) of a part of the images, each (n, V, c, h, w), in batches, images outermost.

    The first batch shows the size on disk.
    """
    images = enumerate(in_order(pixels, part, pool), part.start)
    pairs = ((n, variant, image) for n, image in images for variant in variants)
    out, done = None, 0
    while chosen := list(islice(pairs, batch)):
        x = torch.stack([apply_variant(to_tensor(image), variant) for _, variant, image in chosen])  # (B, 3, S, S)
        both = [z.detach().to("cpu", dtype) for z in encode(x)]  # (B, c, h, w) each
        finite = torch.stack([z.isfinite().flatten(1).all(1) for z in both]).all(0)
        if not finite.all():
            n, variant, _ = chosen[int((~finite).nonzero()[0])]
            raise ValueError(f"the latent of image {n} in {variant} is not finite in {dtype}")
        if out is None:
            if folder is not None:
                _check_disk(folder, 2 * both[0][0].nbytes * len(variants) * (len(pixels) - part.start))
            out = [torch.empty((len(part) * len(variants), *z.shape[1:]), dtype=dtype) for z in both]
        for whole, z in zip(out, both):
            whole[done : done + len(z)] = z
        done += len(chosen)
        advance(len(chosen))
    return tuple(whole.unflatten(0, (len(part), len(variants))) for whole in out)


def _check_disk(folder: Path, size: int) -> None:
    free = shutil.disk_usage(folder).free
    if free < 2 * size:  # other processes and the run write too
        raise ValueError(
            f"the latent cache needs {size / 1e6:.1f} MB, asks for twice that, and {folder} has "
            f"{free / 1e6:.1f} MB free"
        )

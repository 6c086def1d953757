import os
import shutil
from collections import namedtuple

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from data.latents import encode_latents, sample_posterior
from data.output import atomic
from data.output.atomic import write_atomic
from data.transforms import Variant, apply_variant, to_tensor, variants

IMAGES = np.random.default_rng(0).integers(0, 256, (3, 8, 8, 3), dtype=np.uint8)
FLIPS = variants("hv")


class Encoder:
    """A stand-in for a VAE: mean = 2x2 average, log-variance = -mean; it counts the images that it was given."""

    def __init__(self):
        self.seen = 0

    def __call__(self, x):
        self.seen += len(x)
        mean = F.avg_pool2d(x, 2)
        return mean, -mean


def test_every_variant_of_every_image_is_encoded_once(tmp_path):
    encode = Encoder()
    cache = encode_latents(IMAGES, FLIPS, encode, "vae", batch=5)
    assert cache.mean.shape == cache.logvar.shape == (3, 4, 3, 4, 4) and encode.seen == 12
    assert cache.files == () and not cache.reused and cache.mean.dtype == torch.float32
    for n, image in enumerate(IMAGES):
        for v, variant in enumerate(FLIPS):
            mean, logvar = Encoder()(apply_variant(to_tensor(image), variant)[None])
            assert torch.allclose(cache.mean[n, v], mean[0]) and torch.allclose(cache.logvar[n, v], logvar[0])


def test_flips_are_in_the_cache(tmp_path):
    cache = encode_latents(IMAGES, [Variant(), Variant(hflip=True)], Encoder(), "vae", tmp_path)
    again = encode_latents(IMAGES, [Variant(), Variant(hflip=True)], Encoder(), "vae", tmp_path)
    assert again.reused and torch.allclose(again.mean[:, 1], cache.mean[:, 0].flip(-1), atol=1e-6)


def test_a_second_call_reads_the_file_and_gives_the_same_numbers(tmp_path):
    encode = Encoder()
    first = encode_latents(IMAGES, FLIPS, encode, "vae", tmp_path / "cache")
    second = encode_latents(list(IMAGES), FLIPS, encode, "vae", tmp_path / "cache", batch=1)
    assert not first.reused and second.reused and encode.seen == 12
    assert torch.equal(first.mean[:], second.mean[:]) and torch.equal(first.logvar[:], second.logvar[:])
    assert [path.name for path in (tmp_path / "cache").iterdir()] == [f"latents-{first.name[:32]}.safetensors"]


def test_an_encoder_with_another_memory_layout_is_kept_too(tmp_path):
    def channels_last(x):
        return tuple(z.contiguous(memory_format=torch.channels_last) for z in Encoder()(x))

    kept = encode_latents(IMAGES, FLIPS, channels_last, "vae", tmp_path)
    again = encode_latents(IMAGES, FLIPS, channels_last, "vae", tmp_path)
    assert again.reused and torch.equal(again.mean[:], kept.mean[:])


def test_anything_that_changes_the_numbers_changes_the_name(tmp_path):
    changed = IMAGES.copy()
    changed[2, 0, 0, 0] ^= 1  # the same file name, one bit of one pixel
    calls = [
        (IMAGES, FLIPS, "vae"),
        (changed, FLIPS, "vae"),
        (IMAGES[::-1], FLIPS, "vae"),
        (IMAGES, FLIPS[:2], "vae"),
        (IMAGES, FLIPS, "other vae"),
        (IMAGES[:, :4, :4], FLIPS, "vae"),
    ]
    caches = [encode_latents(images, chosen, Encoder(), key, tmp_path) for images, chosen, key in calls]
    half = encode_latents(IMAGES, FLIPS, Encoder(), "vae", tmp_path, dtype=torch.float16)
    assert half.mean.dtype == torch.float16 and torch.allclose(half.mean[:].float(), caches[0].mean[:], atol=1e-3)
    assert not any(cache.reused for cache in (*caches, half))
    assert len({cache.name for cache in (*caches, half)}) == 7 == len(list(tmp_path.iterdir()))


@pytest.mark.parametrize("damage", ["truncate", "flip", "empty", "other"])
def test_a_damaged_file_is_encoded_again_with_one_line(tmp_path, capsys, damage):
    first = encode_latents(IMAGES, FLIPS, Encoder(), "vae", tmp_path)
    content = bytearray(first.files[0].read_bytes())
    if damage == "flip":
        content[-7] ^= 4
    if damage == "other":
        content = encode_latents(IMAGES, FLIPS, Encoder(), "vae 2", tmp_path).files[0].read_bytes()
    first.files[0].write_bytes({"truncate": content[: len(content) // 2], "empty": b""}.get(damage, bytes(content)))
    again = encode_latents(IMAGES, FLIPS, Encoder(), "vae", tmp_path)
    assert not again.reused and torch.equal(again.mean[:], first.mean[:])
    assert capsys.readouterr().out.count("\n") == 1
    assert encode_latents(IMAGES, FLIPS, Encoder(), "vae", tmp_path).reused


def test_sample_is_mean_plus_deviation_times_noise():
    cache = encode_latents(IMAGES, FLIPS, Encoder(), "vae", dtype=torch.float16)
    one = sample_posterior(cache, 1, 2, torch.Generator().manual_seed(0))
    noise = torch.randn(3, 4, 4, generator=torch.Generator().manual_seed(0))
    assert torch.allclose(one, cache.mean[1, 2].float() + (cache.logvar[1, 2].float() / 2).exp() * noise)
    some = sample_posterior(cache, torch.tensor([0, 2, 2]), torch.tensor([3, 0, 1]), torch.Generator().manual_seed(0))
    assert some.shape == (3, 3, 4, 4) and some.dtype == torch.float32
    quiet = cache._replace(logvar=torch.full_like(cache.logvar, -60))
    assert torch.allclose(sample_posterior(quiet, torch.tensor([2]), 1)[0], cache.mean[2, 1].float(), atol=1e-6)


def test_a_latent_that_is_not_finite_names_image_and_variant():
    def overflow(x):
        mean, logvar = Encoder()(x)
        return mean * 1e6, logvar

    with pytest.raises(ValueError, match=r"image 0 in Variant\(.*\) is not finite in torch.float16"):
        encode_latents(IMAGES, FLIPS, overflow, "vae", dtype=torch.float16)


def test_wrong_inputs_are_refused():
    tall = np.zeros((8, 6, 3), np.uint8)
    for images, chosen, options, reason in [
        ([IMAGES[0], tall], FLIPS, {}, r"image 1 is uint8 \(8, 6, 3\)"),
        ([tall], [*FLIPS, Variant(degrees=90)], {}, "must be square"),
        ([IMAGES[0] / 255], FLIPS, {}, "float64"),
        ([], FLIPS, {}, "no images"),
        (IMAGES, [], {}, "no variants"),
        (IMAGES, FLIPS, {"dtype": torch.int8}, "float32 or float16"),
    ]:
        with pytest.raises(ValueError, match=reason):
            encode_latents(images, chosen, Encoder(), "vae", **options)


def test_no_room_on_the_disk_is_said_after_the_first_batch(tmp_path, monkeypatch):
    usage = namedtuple("usage", "total used free")
    monkeypatch.setattr(shutil, "disk_usage", lambda folder: usage(1, 1, 1000))
    encode = Encoder()
    with pytest.raises(ValueError, match="0.0 MB free"):
        encode_latents(IMAGES, FLIPS, encode, "vae", tmp_path / "cache", batch=4)
    assert encode.seen == 4 and list((tmp_path / "cache").iterdir()) == []


@pytest.mark.parametrize("step", ["fsync", "replace"])
def test_a_crash_while_writing_leaves_the_old_file_and_no_stray_one(tmp_path, monkeypatch, step):
    path = tmp_path / "new" / "file.bin"
    write_atomic(path, b"old")

    def crash(*_):
        raise OSError("no space left on device")

    monkeypatch.setattr(atomic.os, step, crash)
    with pytest.raises(OSError, match="no space"):
        write_atomic(path, b"new content")
    monkeypatch.undo()
    assert path.read_bytes() == b"old" and os.listdir(path.parent) == ["file.bin"]
    write_atomic(path, b"new content")
    assert path.read_bytes() == b"new content" and path.stat().st_mode & 0o777 == 0o644

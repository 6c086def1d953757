"""Latents in shards: an encoding that is interrupted, torn, shared by two processes, and what it takes of memory."""

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from data import latents
from data.latents import encode_latents, sample_posterior
from data.lazy import Lazy
from data.shards import claimed
from data.transforms import variants
from tests.data.test_latents import Encoder

ROOT = Path(__file__).parent.parent.parent
IMAGES = np.random.default_rng(0).integers(0, 256, (70, 8, 8, 3), dtype=np.uint8)  # five shards of 16, the last of 6
FLIPS = variants("h")


@pytest.fixture(autouse=True)
def small_shards(monkeypatch):
    monkeypatch.setattr(latents, "SHARD", 16 * 8 * 8 * len(FLIPS))


def one(i):
    return IMAGES[i]


def lazily(pixels=IMAGES):
    return Lazy(one, lambda i: (i,), pixels.shape, np.uint8)


@pytest.mark.parametrize("images", [IMAGES, lazily()], ids=["held", "lazy"])
def test_shards_hold_what_memory_would(tmp_path, images):
    whole = encode_latents(IMAGES, FLIPS, Encoder(), "vae")
    cache = encode_latents(images, FLIPS, Encoder(), "vae", tmp_path)
    assert len(cache.files) == 5 and cache.mean.shape == whole.mean.shape and cache.mean.dtype == torch.float32
    assert torch.equal(cache.mean[:], whole.mean) and torch.equal(cache.logvar[:], whole.logvar)
    index, variant = torch.tensor([69, 0, 17, 17, 33, 16]), torch.tensor([1, 0, 0, 1, 1, 0])
    assert torch.equal(cache.mean[index, variant], whole.mean[index, variant])
    assert torch.equal(cache.mean[index, 0], whole.mean[index, 0]) and torch.equal(cache.mean[5, 1], whole.mean[5, 1])
    drawn = (sample_posterior(of, index, variant, torch.Generator().manual_seed(0)) for of in (cache, whole))
    assert torch.equal(*drawn)


def test_an_interrupted_encoding_goes_on_where_it_was(tmp_path):
    class Interrupted(Encoder):
        def __call__(self, x):
            if self.seen >= 80:  # in the middle of the third shard
                raise KeyboardInterrupt
            return super().__call__(x)

    with pytest.raises(KeyboardInterrupt):
        encode_latents(IMAGES, FLIPS, Interrupted(), "vae", tmp_path)
    assert len(list(tmp_path.iterdir())) == 2
    rest = Encoder()
    cache = encode_latents(IMAGES, FLIPS, rest, "vae", tmp_path)
    assert rest.seen == 2 * 70 - 2 * 32 and not cache.reused
    assert torch.equal(cache.mean[:], encode_latents(IMAGES, FLIPS, Encoder(), "vae").mean)


@pytest.mark.parametrize("damage", ["truncate", "flip", "longer"])
def test_a_torn_shard_is_found_and_made_again_alone(tmp_path, capsys, damage):
    first = encode_latents(IMAGES, FLIPS, Encoder(), "vae", tmp_path)
    before, content = first.mean[:], bytearray(first.files[3].read_bytes())
    content[-9] ^= damage == "flip"
    first.files[3].write_bytes(content[:-40] if damage == "truncate" else content + bytes(damage == "longer"))
    encode = Encoder()
    again = encode_latents(IMAGES, FLIPS, encode, "vae", tmp_path)
    assert encode.seen == 32 and torch.equal(again.mean[:], before)
    assert str(first.files[3]) in capsys.readouterr().out
    assert encode_latents(IMAGES, FLIPS, Encoder(), "vae", tmp_path).reused


def test_a_folder_that_grew_keeps_the_shards_before(tmp_path):
    encode_latents(IMAGES[:32], FLIPS, Encoder(), "vae", tmp_path)
    encode = Encoder()
    encode_latents(IMAGES, FLIPS, encode, "vae", tmp_path)
    assert encode.seen == 2 * (70 - 32)


TWO = """
import sys, time
sys.path.insert(0, {root!r})
from tests.data import test_shards
from data import latents
latents.SHARD = 16 * 8 * 8 * 2
class Slow(test_shards.Encoder):
    def __call__(self, x):
        time.sleep(0.05)
        return super().__call__(x)
encode = Slow()
print("ready", flush=True)
sys.stdin.readline()
cache = latents.encode_latents(test_shards.IMAGES, test_shards.FLIPS, encode, "vae", sys.argv[1])
print(encode.seen, cache.mean[:].double().sum().item())
"""


def test_two_processes_share_one_cache(tmp_path):
    """Each encodes some shards, none is encoded twice, and both read all."""
    code = TWO.format(root=str(ROOT))
    how = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
    both = [subprocess.Popen([sys.executable, "-c", code, str(tmp_path)], **how) for _ in range(2)]
    for process in both:
        assert process.stdout.readline() == "ready\n"
    for process in both:
        process.stdin.write("\n")
        process.stdin.flush()
    (seen, total), (other, same) = (map(float, process.communicate()[0].split()) for process in both)
    assert seen + other == 140 and 0 < seen < 140 and total == same
    assert len(list(tmp_path.iterdir())) == 5


def test_a_claim_excludes_others_and_ends_with_its_block(tmp_path):
    path = tmp_path / "shard"
    with claimed(path) as mine, claimed(path) as yours:
        assert mine and not yours
    with claimed(path) as mine:
        assert mine
    assert list(tmp_path.iterdir()) == []


def test_the_lock_of_a_process_that_died_is_removed_and_that_of_a_living_one_kept(tmp_path):
    dead = tmp_path / ".latents-of-a-dead-process.safetensors.lock"
    dead.touch()
    with claimed(tmp_path / "latents-of-another.safetensors"):
        files = encode_latents(IMAGES, FLIPS, Encoder(), "vae", tmp_path).files
        living = tmp_path / ".latents-of-another.safetensors.lock"
        assert {*tmp_path.iterdir()} == {*files, living}


MEMORY = """
import json, re, sys
sys.path[:0] = [{root!r}]
import numpy as np, torch
from data.latents import encode_latents, sample_posterior
from data.lazy import Lazy
from data.transforms import variants
def held(what):
    return int(re.search(what + r":\\s+(\\d+)", open("/proc/self/status").read())[1]) / 1024
def image(i):
    return np.full((64, 64, 3), i % 256, np.uint8)
def encode(x):
    mean = x[:, :, ::4, ::4].repeat(1, 2, 1, 1)[:, :4]
    return mean, -mean
def cache(count, folder):
    images = Lazy(image, lambda i: (i,), (count, 64, 64, 3), np.uint8)
    images.digests
    return encode_latents(images, variants("hv"), encode, "vae", folder)
cache(600, sys.argv[1])  # what the first use of everything takes
before = held("VmHWM")
made = cache(int(sys.argv[2]), sys.argv[1])
for step in range(30):
    sample_posterior(made, torch.randint(len(made.mean), (32,)), torch.randint(4, (32,)))
print(json.dumps([before, held("VmHWM"), sum(file.stat().st_size for file in made.files) / 2**20]))
"""


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="the peak of memory is read from Linux's /proc")
def test_memory_does_not_grow_with_what_is_encoded(tmp_path):
    code = MEMORY.format(root=str(ROOT))
    shown = subprocess.run([sys.executable, "-c", code, str(tmp_path), "3000"], capture_output=True, text=True)
    before, after, size = json.loads(shown.stdout)
    assert size > 90 and after < 1.1 * before, shown

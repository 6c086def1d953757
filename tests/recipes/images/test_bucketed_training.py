"""Training on photographs of five odd shapes: each in its bucket, with its latents kept, as often as any other."""

import re
from collections import Counter
from pathlib import Path

import pytest
import torch
from PIL import Image

import train
import weights
from config.training import Images
from ops.device import Compute
from recipes.conditions.captions import Captions
from recipes.models.loading import load_sd
from tests.fakes import tiny_xl

ODD = [(160, 16), (50, 33), (50, 50), (43, 77), (20, 120)]  # (width, height)
CPU = Compute(torch.device("cpu"), "fp32")


@pytest.fixture
def photographs(tmp_path):
    folder = tmp_path / "photos"
    folder.mkdir()
    for i, size in enumerate(ODD):
        Image.new("RGB", size, (40 * i, 90, 20)).save(folder / f"{i}.png")
        (folder / f"{i}.txt").write_text(f"photo {i}")
    Image.new("RGB", (50, 50), (9, 9, 9)).save(folder / "5.png")
    (folder / "5.txt").write_text("photo 5")
    return folder


@pytest.fixture(scope="module")
def xl(tmp_path_factory):
    folder = tmp_path_factory.mktemp("tiny-xl")
    weights.save_sd(tiny_xl(length=16, input_size=16), folder, "sd-diffusers")
    return folder


def settings(folder, **more):
    return Images(data=str(folder), flips="h", rotations="0", size=64, **more)


def test_latents_have_the_shapes_of_the_images_and_are_kept(photographs, xl, tmp_path, capsys):
    cache = str(tmp_path / "cache")
    condition = Captions(load_sd(str(xl), CPU), settings(photographs), "", cache, CPU, buckets=True)
    assert "6 images in 5 buckets, none left out" in capsys.readouterr().out
    assert sorted(sum((bucket.numbers.tolist() for bucket in condition.buckets), [])) == list(range(6))
    batches, shapes = condition.batches(), set()
    for places in condition.turns:
        batch = batches(places.repeat(2), torch.Generator().manual_seed(0))
        height, width = (4 * side for side in batch["x0"].shape[2:])
        shapes.add((height, width))
        sizes = batch["cond"][:, -6:].tolist()
        own = [ODD[i][::-1] if i < 5 else (50, 50) for i in condition.places[places.repeat(2)].tolist()]
        assert [tuple(row[:2]) for row in sizes] == own and all(row[4:] == [height, width] for row in sizes)
    assert len(shapes) == 5 and all(height * width <= 64 * 64 for height, width in shapes)
    assert len(list(Path(cache).glob("latents-*"))) == 5
    with pytest.raises(AssertionError, match="a batch has one shape"):
        batches(torch.tensor([0, 1]), torch.Generator())


def test_a_run_sees_every_image_as_often_as_any_other(photographs, xl, tmp_path, monkeypatch):
    seen, build = Counter(), Captions.batches

    def counted(self, *args, **options):
        batches = build(self, *args, **options)

        def batch(index, generator):
            seen.update(index.tolist())
            return batches(index, generator)

        return batch

    monkeypatch.setattr(Captions, "batches", counted)
    flags = "--steps 12 --batch 2 --sample-steps 2 --count 1 --flips none --rotations 0 --lr 1e-3 --size 64 --cache="
    call = ["--recipe", "text", "--model", str(xl), "--data", str(photographs), "--buckets", *flags.split()]
    train.main([*call, "--adapter", "lora:rank=2", "--out", str(tmp_path / "run")])
    assert dict(seen) == dict.fromkeys(range(6), 4)
    assert re.search(r"^buckets = true$", (tmp_path / "run/config.toml").read_text(), re.M)


def test_what_buckets_cannot_be(photographs, xl):
    with pytest.raises(ValueError, match="--buckets keeps the shape of an image, and turns change it"):
        turned = Images(data=str(photographs), rotations="0,90", size=64)
        Captions(load_sd(str(xl), CPU), turned, "", "", CPU, buckets=True)
    with pytest.raises(ValueError, match="generated ones are squares"):
        Captions(load_sd(str(xl), CPU), settings("generated:hazelnut/few/1"), "", "", CPU, buckets=True)
    with pytest.raises(ValueError, match="--buckets is read by .*text.*, not by class_label"):
        train.main(["--buckets"])

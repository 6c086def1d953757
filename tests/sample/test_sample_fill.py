"""sample.py --image --mask: what lies outside stays, what lies inside is drawn, as diffusers draws it."""

import json

import numpy as np
import pytest
import torch
from PIL import Image

import sample
import weights
from data import load
from data.__main__ import main as inspect
from data.output.grid import save_image
from data.place.changed import Changed, changed
from data.transforms import Transform
from inference.fill import read_job
from sampling import sample_noise, sample_seeds
from unet import TextConditioned
from unet.inpaint import take_mask

FAST = ["--count", "2", "--steps", "4", "--precision", "fp32", "--guidance", "2"]


@pytest.fixture(scope="module")
def photos(tmp_path_factory):
    """A folder of photographs of 16 pixels, and one of 40 x 60; masks of them."""
    folder = tmp_path_factory.mktemp("photos")
    rng = np.random.default_rng(0)
    for name, shape in (("good/1", (16, 16)), ("good/2", (16, 16)), ("large/1", (40, 60))):
        path = folder / f"{name}.png"
        path.parent.mkdir(exist_ok=True)
        Image.fromarray(rng.integers(0, 256, (*shape, 3), np.uint8)).save(path)
    shapes = {"none": np.s_[0:0], "all": np.s_[:], "cells": np.s_[4:12, 8:16], "odd": np.s_[3:7, 2:9]}
    for name, box in shapes.items():
        save_mask(folder / f"{name}.png", (16, 16), box)
    save_mask(folder / "small.png", (40, 60), np.s_[20:24, 31:37])
    for name, box in (("1-0", np.s_[:8]), ("2-0", np.s_[:, :8]), ("2-1", np.s_[8:])):
        save_mask(folder / "named" / f"{name}.png", (16, 16), box)
    return folder


def save_mask(path, shape, box):
    path.parent.mkdir(exist_ok=True)
    values = np.zeros(shape, np.uint8)
    values[box] = 255
    Image.fromarray(values).save(path)


def read(path):
    return np.asarray(Image.open(path)).astype(int)


def model_of(kind, tiny, tiny_sd):
    if kind == "sd":
        return ["--model", str(tiny_sd), "--prompt", "a hazelnut with a hole"]
    return ["--model", str(tiny / "dit.safetensors"), "--vae", str(tiny / "vae.safetensors"), "--classes", "pill/hole"]


def drawn(out, *argv):
    sample.main([*FAST, *argv, "--out", str(out)])
    return [read(path) for path in sorted(out.glob("*_00?.png"))]


@pytest.fixture(scope="module")
def inpainting(tiny_sd, tmp_path_factory):
    """The tiny Stable Diffusion with an input for masks, every weight random, as a folder of diffusers."""
    folder = tmp_path_factory.mktemp("inpaint")
    sd = weights.load_sd(tiny_sd, dtype=torch.float32)
    take_mask(TextConditioned(sd.unet, sd.text))
    torch.manual_seed(1)
    torch.nn.init.normal_(sd.unet.conv_in.weight, std=0.1)
    weights.save_sd(sd, folder, "sd-diffusers")
    return folder


@pytest.mark.parametrize("kind", ["dit", "sd"])
@pytest.mark.parametrize("more", [[], ["--strength", "0.5"], ["--resample", "2", "--jump", "2", "--sampler", "ddpm"]])
def test_no_mask_is_the_photograph_and_outside_of_one_not_a_pixel_differs(kind, more, tiny, tiny_sd, photos, tmp_path):
    good = ["--image", str(photos / "good" / "1.png"), *more, *model_of(kind, tiny, tiny_sd)]
    photograph = read(photos / "good" / "1.png")
    for image in drawn(tmp_path / "none", *good, "--mask", str(photos / "none.png")):
        assert (image == photograph).all()
    inside = read(photos / "odd.png") > 0
    for image in drawn(tmp_path / "odd", *good, "--mask", str(photos / "odd.png")):
        assert (image[~inside] == photograph[~inside]).all() and (image[inside] != photograph[inside]).mean() > 0.5


@pytest.mark.parametrize("kind", ["dit", "sd"])
def test_a_mask_of_everything_is_plain_sampling(kind, tiny, tiny_sd, photos, tmp_path):
    model = model_of(kind, tiny, tiny_sd)
    whole = drawn(tmp_path / "a", *model, "--image", str(photos / "good"), "--mask", str(photos / "all.png"))
    plain = drawn(tmp_path / "b", *model)
    assert all((a == b).all() for a, b in zip(whole, plain, strict=True)) and len(plain) == 2


def test_masks_go_with_the_photographs_of_their_names(tiny, tiny_sd, photos, tmp_path):
    model = [*model_of("dit", tiny, tiny_sd), "--image", str(photos / "good"), "--mask", str(photos / "named")]
    images = drawn(tmp_path, *model, "--count", "4")
    for image, (name, box) in zip(images, [("1", np.s_[8:]), ("2", np.s_[:, 8:]), ("2", np.s_[:8]), ("1", np.s_[8:])]):
        assert (image[box] == read(photos / "good" / f"{name}.png")[box]).all()


@pytest.mark.parametrize("window", ["0", "3"])
def test_a_large_photograph_keeps_its_size_and_pixels(window, tiny, tiny_sd, photos, tmp_path):
    flags = ["--image", str(photos / "large" / "1.png"), "--mask", str(photos / "small.png"), "--window", window]
    inside, photograph = read(photos / "small.png") > 0, read(photos / "large" / "1.png")
    for image in drawn(tmp_path, *model_of("dit", tiny, tiny_sd), *flags):
        assert (image[~inside] == photograph[~inside]).all() and (image[inside] != photograph[inside]).any()


def test_an_image_of_a_fill_is_drawn_again(tiny, tiny_sd, photos, tmp_path):
    flags = ["--image", str(photos / "good"), "--mask", str(photos / "odd.png"), "--strength", "0.8"]
    first = drawn(tmp_path / "a", *model_of("dit", tiny, tiny_sd), *flags)
    sample.main(["--like", str(tmp_path / "a" / "pill_hole_001.png"), "--out", str(tmp_path / "b")])
    assert np.abs(read(tmp_path / "b" / "pill_hole_001.png") - first[1]).max() <= 1


def theirs(folder, photos, mask, strength=1.0):
    """The image of diffusers' inpainting pipeline for the noise of sample 0, pasted by nobody."""
    diffusers = pytest.importorskip("diffusers")
    pipeline = diffusers.StableDiffusionInpaintPipeline.from_pretrained(folder, safety_checker=None)
    moments = pipeline.vae.quant_conv  # its encoder's distribution becomes its mean, which sample.py takes
    moments.weight.data[4:], moments.bias.data[4:] = 0, -60
    noise = sample_noise(sample_seeds(0, ["a hazelnut with a hole"]), [0])(torch.empty(1, 4, 4, 4))
    return pipeline(
        "a hazelnut with a hole",
        image=Image.open(photos / "good" / "1.png"),
        mask_image=Image.open(photos / f"{mask}.png"),
        height=16,
        width=16,
        strength=strength,
        latents=noise,
        num_inference_steps=4,
        guidance_scale=2.0,
        output_type="np",
    ).images[0]


def ours(folder, photos, mask, tmp_path, monkeypatch, *more):
    monkeypatch.setattr("inference.fill.pasted", lambda drawn, *rest: drawn)
    flags = ["--image", str(photos / "good" / "1.png"), "--mask", str(photos / f"{mask}.png"), *more]
    return drawn(tmp_path, "--model", str(folder), "--prompt", "a hazelnut with a hole", *flags)[0]


def test_diffusers_blends_to_the_same_image(tiny_sd, photos, tmp_path, monkeypatch):
    image = ours(tiny_sd, photos, "cells", tmp_path, monkeypatch)
    assert np.abs(image - 255 * theirs(tiny_sd, photos, "cells")).max() <= 2


def test_diffusers_fills_the_same_image_with_a_model_for_inpainting(inpainting, photos, tmp_path, monkeypatch):
    image = ours(inpainting, photos, "cells", tmp_path, monkeypatch)
    assert np.abs(image - 255 * theirs(inpainting, photos, "cells")).max() <= 2


@pytest.mark.parametrize(
    ("flags", "fault"),
    [
        (["--mask", "small.png"], "a mask is as large as its photograph; .*1.png is 16x16, the mask 60x40"),
        (["--mask", "odd.png", "--resample", "2", "--sampler", "dpm++"], "take ddim or ddpm"),
        (["--mask", "empty"], "empty: expected images, found none"),
    ],
)
def test_what_does_not_fit_is_one_sentence(flags, fault, tiny, tiny_sd, photos, tmp_path):
    (photos / "empty").mkdir(exist_ok=True)
    flags = [str(photos / word) if word in ("small.png", "odd.png", "empty") else word for word in flags]
    with pytest.raises(ValueError, match=fault):
        drawn(tmp_path, *model_of("dit", tiny, tiny_sd), "--image", str(photos / "good"), *flags)


@pytest.mark.parametrize(
    ("flags", "fault"),
    [
        ([], "a model for inpainting reads a photograph and its mask"),
        (["--image", "good/1.png", "--mask", "odd.png", "--resample", "2"], "--resample is for models without"),
        (["--image", "good/1.png", "--mask", "odd.png", "--attend", "hole"], "--attend is for models without"),
    ],
)
def test_what_a_model_for_inpainting_cannot_is_one_sentence(flags, fault, inpainting, photos, tmp_path):
    flags = [str(photos / word) if word.endswith(".png") else word for word in flags]
    with pytest.raises(ValueError, match=fault):
        drawn(tmp_path, "--model", str(inpainting), "--prompt", "a hazelnut with a hole", *flags)


def lines(out):
    return [json.loads(line) for line in (out / "pairs.jsonl").read_text().splitlines()]


def pairs(out, photos, tiny, tiny_sd, *more, kind="dit"):
    flags = ["--image", str(photos / "good"), "--mask", str(photos / "named"), "--product", "nut", *more]
    sample.main([*FAST, *model_of(kind, tiny, tiny_sd), *flags, "--out", str(out)])


@pytest.mark.parametrize("kind", ["dit", "sd"])
def test_pairs_load_back_as_an_mvtec_tree_with_all_masks(kind, tiny, tiny_sd, photos, tmp_path, capsys):
    pairs(tmp_path, photos, tiny, tiny_sd, "--defect", "hole", "--count", "3", kind=kind)
    assert "3 pairs in" in capsys.readouterr().out
    assert inspect(["--inspect", str(tmp_path)]) == 0
    report = capsys.readouterr().out
    assert "mvtec: 1 classes, 3 images, 3 masks" in report and "0 bad files" in report
    images = load(str(tmp_path), Transform(16))
    assert images.classes == ["nut/hole"] and images.masks.any((1, 2)).all()
    good = {name: read(photos / "good" / f"{name}.png") for name in "12"}
    for i, line in enumerate(lines(tmp_path)):
        asked = read(line["asked"]) > 0
        assert line["image"] == f"nut/test/hole/{i:03d}.png" and line["source"].endswith(f"{'122'[i]}.png")
        assert (images.pixels[i][~images.masks[i] & ~asked] == good["122"[i]][~images.masks[i] & ~asked]).all()
        assert not (images.masks[i] & ~asked).any()
        assert line["scores"]["iou"] == pytest.approx(images.masks[i].sum() / asked.sum(), abs=1e-3)
        assert line["seed"] == 0 and line["model"] and line["class" if kind == "dit" else "prompt"]


def test_the_strongest_candidate_is_kept(tiny, tiny_sd, photos, tmp_path):
    pairs(tmp_path / "a", photos, tiny, tiny_sd, "--count", "2", "--candidates", "3")
    mask = photos / "named" / "1-0.png"
    flags = [*model_of("dit", tiny, tiny_sd), "--image", str(photos / "good" / "1.png"), "--mask", str(mask)]
    alone = drawn(tmp_path / "b", *flags, "--count", "3")
    good, asked = read(photos / "good" / "1.png").astype(np.uint8), read(mask) > 0
    differences = [changed(image.astype(np.uint8), good, asked).difference for image in alone]
    first = lines(tmp_path / "a")[0]
    best = max(range(3), key=differences.__getitem__)
    assert len(lines(tmp_path / "a")) == 2 and first["number"] == best
    assert np.abs(read(tmp_path / "a" / first["image"]) - alone[best]).max() <= 1


def test_what_changed_too_little_is_dropped_and_counted(tiny, tiny_sd, photos, tmp_path, capsys, monkeypatch):
    shares = iter([0.5, 0.05, 0.9])
    monkeypatch.setattr("inference.pairs.changed", lambda image, good, asked: Changed(asked, next(shares), 1.0))
    pairs(tmp_path, photos, tiny, tiny_sd, "--count", "3", "--least", "0.2")
    said = capsys.readouterr().out
    assert "2 pairs in" in said and "1 dropped, which changed less than 0.2 of the mask" in said
    assert [line["scores"]["iou"] for line in lines(tmp_path)] == [0.5, 0.9]


def test_pairs_of_another_call_are_kept_or_replaced(tiny, tiny_sd, photos, tmp_path):
    pairs(tmp_path, photos, tiny, tiny_sd, "--defect", "hole")
    pairs(tmp_path, photos, tiny, tiny_sd, "--defect", "cut", "--seed", "1")
    with pytest.raises(ValueError, match="nut/test/hole holds pairs: name another folder"):
        pairs(tmp_path, photos, tiny, tiny_sd, "--defect", "hole")
    pairs(tmp_path, photos, tiny, tiny_sd, "--defect", "hole", "--count", "1", "--replace")
    found = [line["image"] for line in lines(tmp_path)]
    assert found == ["nut/test/cut/000.png", "nut/test/cut/001.png", "nut/test/hole/000.png"]
    assert len(list((tmp_path / "nut" / "ground_truth" / "hole").iterdir())) == 1


def test_a_photograph_that_nothing_was_drawn_in_is_no_pair(tiny, tiny_sd, photos, tmp_path):
    flags = ["--image", str(photos / "good"), "--mask", str(photos / "none.png"), "--product", "nut"]
    with pytest.raises(ValueError, match="no pair was written to .*: 2 dropped, which changed less than 0.1 of"):
        sample.main([*FAST, *model_of("dit", tiny, tiny_sd), *flags, "--out", str(tmp_path)])
    with pytest.raises(ValueError, match="no pair was written to .*: 2 dropped, which did not change"):
        sample.main([*FAST, *model_of("dit", tiny, tiny_sd), *flags, "--least", "0", "--out", str(tmp_path)])


def test_a_mask_that_no_square_of_its_photograph_holds_is_refused(tmp_path):
    save_image(tmp_path / "a.png", np.zeros((20, 60, 3), np.uint8))
    save_image(tmp_path / "mask.png", np.full((20, 60), 255, np.uint8))
    with pytest.raises(ValueError, match="mask.png: the mask does not fit in the largest square .*, of 20: crop both"):
        read_job(tmp_path / "a.png", tmp_path / "mask.png", 2.0)

"""What sampling takes over from a run: its size, its way to read masks, its raw weights, its relative paths."""

import contextlib
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

import sample
import train
import weights
from config import Config
from config import sampling as part
from data import load
from data.transforms import Transform
from inference import request
from inference.hints import controls_of
from ops.device import Compute
from recipes.images.masks import read_masks
from recipes.settings import settings_from_here
from tests.test_train import flags, killed_before

FAST = ["--count", "1", "--steps", "2", "--precision", "fp32"]


def read(path):
    return np.asarray(Image.open(path)).astype(int)


def sampled(out, *argv):
    """{name: pixels} of the images of one call."""
    sample.main([*FAST, "--out", str(out), *argv])
    return {path.name: read(path) for path in out.glob("*_0*.png")}


@pytest.fixture(scope="module")
def large(tiny, tmp_path_factory):
    """A run at twice the side that the model was made for."""
    folder = tmp_path_factory.mktemp("large") / "run"
    train.main(flags(tiny, folder, "--adapter", "lora:rank=2", "--lr", "0.05", "--size", "32"))
    return folder


def test_a_run_at_another_size_is_sampled_at_that_size(large, tiny, tmp_path):
    whole = sampled(tmp_path / "a", "--run", str(large))
    assert {image.shape for image in whole.values()} == {(32, 32, 3)} and len(whole) == 5
    again = sampled(tmp_path / "b", "--run", str(large), "--size", "32")
    base = ["--model", str(tiny / "dit.safetensors"), "--vae", str(tiny / "vae.safetensors")]
    alone = sampled(tmp_path / "c", *base, "--adapter", str(large / "adapter.safetensors"))
    for other in (again, alone):
        assert whole.keys() == other.keys() and all(np.array_equal(whole[name], other[name]) for name in whole)
    last = read(large / "samples" / "step_000006.png")
    assert np.abs(read(tmp_path / "a" / "grid.png") - last).max() <= 1  # what the training showed


def test_a_dit_without_a_run_is_sampled_at_any_size_that_it_can_make(tiny, tmp_path):
    base = ["--model", str(tiny / "dit.safetensors"), "--vae", str(tiny / "vae.safetensors"), "--classes", "0"]
    assert sampled(tmp_path / "a", *base, "--size", "24")["pill_good_000.png"].shape == (24, 24, 3)
    with pytest.raises(ValueError, match="--size must be a multiple of 4 pixels"):
        sampled(tmp_path / "b", *base, "--size", "30")
    assert not (tmp_path / "b").exists()


def test_an_adapter_at_a_size_that_it_was_not_trained_at_is_refused(large, tmp_path):
    with pytest.raises(ValueError, match="trained on another base: input_size 8 but here 4"):
        sampled(tmp_path / "a", "--run", str(large), "--size", "16")


def write_mask(path, kind, side=16):
    """The left half set, saved as annotation tools save masks."""
    values = np.zeros((side, side), np.uint8)
    values[:, : side // 2] = 1
    if kind == "palette":
        image = Image.fromarray(values, "P")
        image.putpalette([0, 0, 0, 128, 0, 0])
    elif kind == "rgba":
        image = Image.fromarray(values * 255).convert("RGBA")
    else:
        image = Image.fromarray(values * {"one": 1, "three": 3, "white": 255}[kind])
    image.save(path)
    return path


@pytest.mark.parametrize("kind", ["one", "three", "palette", "rgba", "white"])
@pytest.mark.parametrize("side", [16, 23])
def test_a_mask_is_read_as_training_reads_it(tmp_path, kind, side):
    folder = tmp_path / "data" / "crack"
    folder.mkdir(parents=True)
    Image.new("RGB", (side, side)).save(folder / "a.png")
    mask = write_mask(folder / "a_mask.png", kind, side)
    trained = load(str(tmp_path / "data"), Transform(8)).masks
    assert np.array_equal(read_masks([str(mask)], 8, {}), trained) and trained.mean() == 0.5


def test_a_mask_is_cropped_as_the_run_cropped(tmp_path):
    mask = write_mask(tmp_path / "m.png", "one", 32)
    cropped = read_masks([str(mask)], 8, {"crop": 16, "resize": "adm"})
    assert np.array_equal(cropped[0], Transform(8, 16, "adm").mask(np.asarray(Image.open(mask))) > 0)
    small = write_mask(tmp_path / "s.png", "one", 8)  # as large as the samples: nothing to crop
    assert read_masks([str(small)], 8, {"crop": 16}).mean() == 0.5


@pytest.fixture(scope="module")
def control(tiny, tmp_path_factory):
    """A ControlNet of the tiny DiT that does something, at another size; its base knows the classes by an adapter."""
    folder = tmp_path_factory.mktemp("control")
    train.main(flags(tiny, folder / "few", "--adapter", "lora:rank=2", "--lr", "0.05", "--size", "32"))
    more = [
        "--recipe",
        "control",
        "--init",
        str(folder / "few" / "adapter.safetensors"),
        "--lr",
        "0.05",
        "--size",
        "32",
    ]
    train.main(flags(tiny, folder / "where", *more, without={"val", "measure"}))
    return folder


@pytest.mark.parametrize("given", ["run", "file"])
def test_every_kind_of_mask_draws_the_same_with_a_controlnet_of_this_package(control, tiny, tmp_path, given):
    base = ["--model", str(tiny / "dit.safetensors"), "--vae", str(tiny / "vae.safetensors")]
    files = ["--adapter", str(control / "few" / "adapter.safetensors")]
    own = ["--control", str(control / "where" / "control.safetensors")]
    source = ["--run", str(control / "where")] if given == "run" else [*base, *files, *own]
    images = {}
    for kind in ("white", "one", "palette"):
        hint = write_mask(tmp_path / f"{kind}.png", kind, 32)
        images[kind] = sampled(tmp_path / kind, *source, "--classes", "crack", "--hint", str(hint))
    Image.new("L", (32, 32)).save(tmp_path / "none.png")
    none = sampled(tmp_path / "none", *source, "--classes", "crack", "--hint", str(tmp_path / "none.png"))
    (white,), (one,), (palette,), (none,) = (list(i.values()) for i in (*images.values(), none))
    assert white.shape == (32, 32, 3) and np.array_equal(white, one) and np.array_equal(white, palette)
    assert not np.array_equal(white, none)


@pytest.mark.parametrize("hints, count, refused", [(3, 2, True), (2, 3, True), (2, 4, False), (1, 3, False)])
def test_every_hint_has_its_images(tmp_path, hints, count, refused):
    files = [str(write_mask(tmp_path / f"{i}.png", "one")) for i in range(hints)]
    config = Config([part.Source, part.Hints, part.Output], {"hint": files, "control": ["x"], "count": count})
    expected = pytest.raises(ValueError, match=f"multiple of the {hints} hints, found {count}")
    with expected if refused else contextlib.nullcontext():
        assert controls_of(config) == [(Path("x"), 1.0, files)]


def test_several_controlnets_take_the_hints_in_turn_each_with_its_strength(tmp_path):
    hints = [str(write_mask(tmp_path / f"{i}.png", "one")) for i in range(4)]

    def controls(given, hints, count=2):
        settings = {"hint": hints, "control": given, "count": count}
        return controls_of(Config([part.Source, part.Hints, part.Output], settings))

    assert controls(["a:0.5", "b"], hints) == [(Path("a"), 0.5, hints[::2]), (Path("b"), 1.0, hints[1::2])]
    with pytest.raises(ValueError, match="the 2 ControlNets take --hint in turn, one each, found 3 hints"):
        controls(["a", "b"], hints[:3])
    with pytest.raises(ValueError, match="--control :STRENGTH is of the ControlNet of a --run, and there is none"):
        controls([":0.5"], hints[:1])
    with pytest.raises(ValueError, match="a: the strength of a ControlNet must be a finite number, found nan"):
        controls(["a:nan"], hints[:1])


def test_a_controlnet_of_a_dit_has_a_strength_and_two_add_up(control, tiny, tmp_path):
    source = ["--run", str(control / "where"), "--classes", "crack"]
    hint = ["--hint", str(write_mask(tmp_path / "white.png", "white", 32))]
    same = ["--control", str(control / "where" / "control.safetensors")]
    flags_of = {
        "one": hint,
        "none": ["--control", ":0", *hint],
        "less": ["--control", ":0.5", *hint],
        "halves": ["--control", ":0.5", "--control", f"{same[1]}:0.5", *hint, *hint],
    }
    images = {}
    for name, words in flags_of.items():
        (images[name],) = sampled(tmp_path / name, *source, *words).values()
    plain = ["--model", str(tiny / "dit.safetensors"), "--vae", str(tiny / "vae.safetensors"), "--classes", "crack"]
    plain += ["--adapter", str(control / "few" / "adapter.safetensors"), "--size", "32"]
    (without,) = sampled(tmp_path / "plain", *plain).values()
    gaps = {name: np.abs(image.astype(int) - images["one"]).max() for name, image in images.items()}
    assert gaps["halves"] <= 1 and min(gaps["none"], gaps["less"]) > 0  # the first block's output is the same
    assert np.abs(images["none"].astype(int) - without).max() <= 1


def test_a_run_of_stable_diffusion_is_sampled_from_the_weights_that_it_was_trained_on(monkeypatch):
    """Of a file with raw and averaged weights, train.py takes the raw ones."""
    asked = []
    monkeypatch.setattr(weights, "load_sd", lambda path, **options: asked.append(options["ema"]) or 1 / 0)
    for stored in ({"model": "x"}, {}):
        config = Config([part.Output, part.Guidance, part.Prompts], {"prompt": ["a"]})
        with contextlib.suppress(ZeroDivisionError):
            request.prepare_sd(config, "x", [], stored, Compute(torch.device("cpu"), "fp32"))
    assert asked == [False, True]


@pytest.fixture
def started(tiny, tmp_path, monkeypatch):
    """Flags of a run of which every path is relative to the current folder."""
    work = tmp_path / "work"
    shutil.copytree(tiny, work)
    monkeypatch.chdir(work)
    relative = ["--model", "dit.safetensors", "--vae", "vae.safetensors", "--out", "run"]
    return flags(tiny, "run", "--adapter", "lora:rank=2", "--lr", "0.05", *relative)


def test_relative_paths_of_a_run_mean_the_same_from_elsewhere(started, tiny, tmp_path, monkeypatch):
    train.main(started)
    here = sampled(tmp_path / "a", "--run", "run", "--classes", "crack")
    (tmp_path / "other").mkdir()
    monkeypatch.chdir(tmp_path / "other")
    there = sampled(tmp_path / "b", "--run", "../work/run", "--classes", "crack")
    shutil.copy(tiny / "vae.safetensors", "dit.safetensors")  # another file of the same name
    shutil.copy(tiny / "vae.safetensors", "vae.safetensors")
    trap = sampled(tmp_path / "c", "--run", "../work/run", "--classes", "crack")
    for other in (there, trap):
        assert all(np.array_equal(here[name], other[name]) for name in here)
    assert settings_from_here(tmp_path / "work" / "run")["model"] == str(tmp_path / "work" / "dit.safetensors")


def test_a_run_is_resumed_from_elsewhere_as_from_where_it_began(started, tmp_path, monkeypatch):
    train.main([*started, "--out", "whole"])
    killed_before(4, started)
    (tmp_path / "other").mkdir()
    monkeypatch.chdir(tmp_path / "other")
    train.main(["--resume", "--out", "../work/run"])
    work = tmp_path / "work"
    assert (work / "run" / "adapter.safetensors").read_bytes() == (work / "whole" / "adapter.safetensors").read_bytes()
    assert list((tmp_path / "other").iterdir()) == []
    header = weights.load_adapter(work / "run" / "adapter.safetensors")[1]["config"]
    assert header["model"] == "dit.safetensors" and "started_in" not in header
    monkeypatch.chdir(work)
    train.main(["--resume", "--out", "run"])  # and from where it began once more


def test_a_run_whose_first_folder_is_gone_is_read_from_here(started, tmp_path, monkeypatch):
    train.main(started)
    shutil.move(tmp_path / "work", tmp_path / "moved")
    monkeypatch.chdir(tmp_path / "moved")
    assert settings_from_here(tmp_path / "moved" / "run")["model"] == "dit.safetensors"
    assert sampled(tmp_path / "a", "--run", "run", "--classes", "crack")

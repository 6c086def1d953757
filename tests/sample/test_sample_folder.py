"""The images of sample.py and their folder: what each says of itself, sampling it again, and folders in use."""

import json
import re
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import evaluate
import sample
import train
from data.output.about import KEY, png_text, read_about
from tests.test_train import flags

FAST = ["--count", "2", "--steps", "2", "--precision", "fp32"]


@pytest.fixture(scope="module")
def run(tiny, tmp_path_factory):
    folder = tmp_path_factory.mktemp("runs") / "run"
    train.main(flags(tiny, folder, "--adapter", "lora:rank=2", "--lr", "0.05"))
    return folder


def files(folder):
    return {path.name: path.read_bytes() for path in sorted(Path(folder).glob("*_0*.png"))}


def test_an_image_says_how_it_was_sampled(run, tmp_path):
    adapter = run / "adapter.safetensors"
    sample.main(["--run", str(run), "--classes", "crack,hole", "--seed", "5", "--out", str(tmp_path), *FAST])
    about = read_about(tmp_path / "hazelnut_hole_001.png")
    wanted = {"class": "hazelnut/hole", "number": 3, "seed": 5, "steps": 2, "guidance": 3.0, "sampler": "ddim"}
    assert wanted.items() <= about.items() and about["adapters"] == [[str(adapter), 1.0]]
    assert Path(about["model"]).is_file() and "out" not in about["settings"]
    assert json.loads(Image.open(tmp_path / "hazelnut_hole_001.png").text[KEY]) == about


def test_a_prompt_of_any_letters_is_kept(tiny_sd, tmp_path):
    prompt = "a hole 裂纹 (weighs:1.2)"
    argv = ["--model", str(tiny_sd), "--prompt", prompt, "--prompt", "a pill", "--negative", "x, y", *FAST]
    sample.main([*argv, "--out", str(tmp_path / "a")])
    name = next(name for name in files(tmp_path / "a") if "weighs" in name)
    about = read_about(tmp_path / "a" / name)
    assert about["prompt"] == prompt and about["settings"]["negative"] == "x, y" and about["adapters"] == []
    sample.main(["--like", str(tmp_path / "a" / name), "--out", str(tmp_path / "b")])
    assert files(tmp_path / "b") == {name: files(tmp_path / "a")[name]}


@pytest.mark.parametrize("sampler", ["ddim", "ddpm"])
def test_like_samples_the_same_image_again_from_any_folder(run, tmp_path, monkeypatch, sampler):
    monkeypatch.chdir(run.parent)
    argv = ["--run", "run", "--classes", "crack,hole,cut", "--seed", "5", "--batch", "4", "--sampler", sampler, *FAST]
    sample.main([*argv, "--out", str(tmp_path / "a")])
    monkeypatch.chdir(tmp_path)
    for name in ("hazelnut_crack_000.png", "hazelnut_cut_001.png"):
        sample.main(["--like", f"a/{name}", "--out", "b"])
        assert (tmp_path / "b" / name).read_bytes() == (tmp_path / "a" / name).read_bytes()
    assert len(files("b")) == 2
    sample.main(["--like", "a/hazelnut_cut_001.png", "--seed", "6", "--out", "c"])  # the whole call with another seed
    assert files("c").keys() == files("a").keys() and read_about("c/hazelnut_cut_001.png")["seed"] == 6
    assert all(files("c")[name] != files("a")[name] for name in files("a"))


def test_an_adapter_with_a_strength_is_sampled_again(run, tiny, tmp_path):
    base = ["--model", str(tiny / "dit.safetensors"), "--vae", str(tiny / "vae.safetensors"), "--classes", "crack"]
    adapter = f"{run / 'adapter.safetensors'}:0.5"
    sample.main([*base, "--adapter", adapter, "--out", str(tmp_path / "a"), *FAST])
    sample.main(["--like", str(tmp_path / "a" / "hazelnut_crack_001.png"), "--out", str(tmp_path / "b")])
    name = "hazelnut_crack_001.png"
    assert files(tmp_path / "b") == {name: files(tmp_path / "a")[name]}


@pytest.mark.parametrize("text", [None, "{", "[1]", '{"settings": 3, "number": 0}', '{"settings": {}, "number": true}'])
def test_an_image_that_does_not_say_is_refused(tmp_path, text):
    info = png_text({})
    if text is not None:
        info.chunks.clear()
        info.add_itxt(KEY, text)
    Image.new("RGB", (4, 4)).save(tmp_path / "a.png", pnginfo=info if text else None)
    with pytest.raises(ValueError, match="a.png: does not say how it was sampled"):
        sample.main(["--like", str(tmp_path / "a.png")])


@pytest.mark.parametrize(
    "settings, words",
    [({"odd": 1}, "unknown key 'odd'"), ({"steps": "x"}, "steps must be int"), ({"steps": -1}, "at least 1")],
)
def test_settings_of_an_image_are_checked_as_flags_are(tmp_path, settings, words):
    Image.new("RGB", (4, 4)).save(tmp_path / "a.png", pnginfo=png_text({"settings": settings, "number": 0}))
    with pytest.raises(ValueError, match=words):
        sample.main(["--like", str(tmp_path / "a.png")])


def test_a_file_that_is_no_png_is_one_sentence(tmp_path):
    (tmp_path / "a.png").write_bytes(b"\x89PNG\r\n\x1a\nxx")
    for name in ("a.png", "missing.png"):
        with pytest.raises(ValueError, match=f"{name}: not a PNG that can be read"):
            sample.main(["--like", str(tmp_path / name)])


OTHERS = [["--seed", "5"], ["--count", "1"], ["--guidance", "2"], ["--classes", "hole"], ["--steps", "3"]]


@pytest.mark.parametrize("other", OTHERS, ids=lambda words: words[0])
def test_samples_of_other_settings_in_the_folder_are_refused_or_asked_for(run, tmp_path, other):
    argv = ["--run", str(run), "--classes", "crack,good", "--out", str(tmp_path / "o"), *FAST]
    sample.main(argv)
    before = files(tmp_path / "o")
    sample.main([*argv, "--batch", "1"])  # the same images once more
    assert files(tmp_path / "o").keys() == before.keys()
    with pytest.raises(ValueError, match=r"holds hazelnut_crack_000.png, a sample of other settings: .*--replace"):
        sample.main([*argv, *other])
    assert files(tmp_path / "o").keys() == before.keys()
    sample.main([*argv, *other, "--replace"])
    sample.main([*argv, *other, "--out", str(tmp_path / "fresh")])
    assert files(tmp_path / "o") == files(tmp_path / "fresh")


def test_the_default_folder_of_a_run_too_and_what_is_measured_is_of_one_call(run, capsys):
    argv = ["--run", str(run), "--precision", "fp32", "--steps", "2"]
    sample.main([*argv, "--count", "4"])
    with pytest.raises(ValueError, match="drawn holds"):
        sample.main([*argv, "--count", "2", "--seed", "5"])
    sample.main([*argv, "--count", "2", "--seed", "5", "--replace"])
    evaluate.main(["--real", "generated:hazelnut/test/2", "--fake", str(run / "drawn")])
    assert re.search(r"samples +10\b", capsys.readouterr().out)


def test_images_that_are_no_samples_stay_and_old_samples_are_refused(run, tmp_path):
    Image.new("RGB", (4, 4)).save(tmp_path / "start.png")
    (tmp_path / "mask.jpg").write_bytes(b"x")
    (tmp_path / "notes_001.txt").write_text("x")
    argv = ["--run", str(run), "--out", str(tmp_path), *FAST]
    sample.main(argv)
    sample.main([*argv, "--seed", "1", "--replace"])
    assert all((tmp_path / name).exists() for name in ("start.png", "mask.jpg", "notes_001.txt"))
    for name in ("walnut_000.png", "hazelnut_good_007.png", "walnut_000.jpg"):  # of a version that wrote no text
        Image.new("RGB", (4, 4)).save(tmp_path / name)
        for more in ([], ["--replace"]):
            with pytest.raises(ValueError, match=f"holds {name}, a sample of another call"):
                sample.main([*argv, "--seed", "1", *more])
        (tmp_path / name).unlink()


def test_samples_of_an_earlier_version_are_written_anew(run, tmp_path):
    Image.new("RGB", (4, 4)).save(tmp_path / "hazelnut_crack_000.png")
    sample.main(["--run", str(run), "--classes", "crack", "--out", str(tmp_path), *FAST])
    assert np.asarray(Image.open(tmp_path / "hazelnut_crack_000.png")).shape == (16, 16, 3)


def test_it_says_first_what_it_will_do(run, tmp_path, capsys):
    sample.main(["--run", str(run), "--out", str(tmp_path / "o"), *FAST])
    first = capsys.readouterr().out.splitlines()[0]
    assert first.startswith("10 images (5 classes x 2) of ") and first.endswith(
        f"by ddim, 2 steps, into {tmp_path / 'o'}"
    )

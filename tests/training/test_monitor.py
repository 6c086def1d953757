"""Watching samples: what a look measures, keeping the best weights, ending a corrupted run, and the picture of it."""

import json
import shutil
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from PIL import Image
from recipes.plot import plot, samples
from recipes.watch import looks, watcher

import sample
import train
import weights
from data import load
from data.transforms import Transform
from metrics.statistics.corruption import best, stage
from recipes import watch

IDLE = SimpleNamespace(keep="last", stop_corrupted=False)
FILES = ("model.safetensors", "checkpoint/state.safetensors")


def flags(tiny, photos, out, *more):
    return [
        "--model",
        str(tiny / "dit.safetensors"),
        "--vae",
        str(tiny / "vae.safetensors"),
        "--data",
        str(photos),
        "--adapter",
        "full",
        "--steps",
        "9",
        "--batch",
        "4",
        "--sample_every",
        "1",
        "--sample_steps",
        "2",
        "--count",
        "8",
        "--measure",
        "0",
        "--precision",
        "fp32",
        "--cache",
        "",
        "--lr_schedule",
        "constant",
        "--ema",
        "0",
        "--lr",
        "10",
        "--warmup",
        "50",
        "--out",
        str(out),
        *more,
    ]


@pytest.fixture(scope="module")
def photos(tiny, tmp_path_factory):
    """Images that the model draws itself: nothing is left to learn, and a rate that goes on rising can but corrupt."""
    folder = tmp_path_factory.mktemp("watch")
    photos = folder / "photos"
    (photos / "crack").mkdir(parents=True)
    Image.new("RGB", (16, 16), (90, 90, 90)).save(photos / "crack" / "0.png")
    train.main(flags(tiny, photos, folder / "run", "--steps", "1", "--lr", "1e-30", "--adapter", "lora"))
    sample.main(["--run", str(folder / "run"), "--count", "8", "--out", str(folder / "drawn")])
    for i, path in enumerate(sorted((folder / "drawn").glob("crack_*.png"))):
        shutil.copy(path, photos / "crack" / f"{i}.png")
    return photos


@pytest.fixture(scope="module")
def spoiled(tiny, photos):
    """A run that keeps its best weights while its learning rate rises."""
    run = photos.parent / "spoiled"
    train.main(flags(tiny, photos, run, "--keep", "best"))
    return run


@pytest.fixture(scope="module")
def few():
    """Two generated photographs of each state of a hazelnut, and the class of each."""
    images = load("generated:hazelnut/few/2", Transform(64))
    return images.pixels, [images.classes[i] for i in images.labels]


def test_the_training_images_themselves_are_as_faithful_and_as_noisy_as_can_be(few):
    numbers = watcher(IDLE, *few, few[1], torch.device("cpu"))(few[0])
    assert numbers["feature_similarity"] == pytest.approx(1, abs=1e-5) and numbers["noise_residual"] == pytest.approx(
        1, rel=1e-5
    )
    assert numbers["feature_similarity_deviation"] < 1e-4 < numbers["noise_residual_deviation"]
    noise = np.random.default_rng(0).normal(0, 60, few[0].shape)
    noisy = watcher(IDLE, *few, few[1], torch.device("cpu"))((few[0] + noise).clip(0, 255).astype(np.uint8))
    assert noisy["feature_similarity"] < 0.98 and noisy["noise_residual"] > 20


def test_a_sample_is_compared_with_images_of_its_class_or_with_all_if_there_is_none(few):
    pixels, classes = few
    shown = np.stack([pixels[0]] * 4)  # a good one
    own, other, new = (
        watcher(IDLE, pixels, classes, [name] * 4, torch.device("cpu"))(shown)["feature_similarity"]
        for name in (classes[0], classes[2], "a prompt")
    )
    assert own == pytest.approx(1, abs=1e-5) == new and other < 0.99


def test_many_training_images_are_thinned_out(few, monkeypatch):
    pixels, classes = few
    monkeypatch.setattr(watch, "KNOWN", 5)  # every second one, the first of each class
    measure = watcher(IDLE, pixels, classes, classes[1::2], torch.device("cpu"))
    assert (
        measure(pixels[::2])["feature_similarity"] == pytest.approx(1, abs=1e-5)
        and measure(pixels[1::2])["feature_similarity"] < 0.999
    )


def test_one_sample_tells_no_noise(few):
    assert watcher(IDLE, *few, ["crack"], torch.device("cpu"))(few[0][:1]) == {}
    for cfg in (SimpleNamespace(keep="best", stop_corrupted=False), SimpleNamespace(keep="last", stop_corrupted=True)):
        with pytest.raises(ValueError, match="need 2 samples a look .* found 1: give a higher --count"):
            watcher(cfg, *few, ["crack"], torch.device("cpu"))


def test_a_rate_that_corrupts_is_caught_and_the_best_look_is_left(tiny, photos, spoiled, tmp_path):
    steps, *curves = looks(spoiled)
    first, last = stage(steps, *curves)
    kept = best(steps, *curves)
    assert steps == list(range(10)) and 0 < kept < 9 and not first <= kept <= last
    train.main(flags(tiny, photos, tmp_path / "short", "--steps", str(kept)))
    assert (spoiled / FILES[0]).read_bytes() == (tmp_path / "short" / FILES[0]).read_bytes()
    state = weights.read(spoiled / FILES[1])[0]  # of step 9
    assert not any(
        torch.equal(tensor, state[name.replace("model/", "best/")])
        for name, tensor in state.items()
        if name.startswith("model/")
    )


def test_a_corrupted_run_can_end_itself(tiny, photos, spoiled, tmp_path, capsys):
    run = tmp_path / "run"
    train.main(flags(tiny, photos, run, "--stop_corrupted"))
    first, _ = stage(*looks(spoiled))
    assert f"the samples of step {first} are corrupted, and the run ends here" in capsys.readouterr().err
    assert looks(run)[0] == list(range(first + 1))
    train.main(flags(tiny, photos, tmp_path / "short", "--steps", str(first)))
    assert (run / FILES[0]).read_bytes() == (tmp_path / "short" / FILES[0]).read_bytes()
    assert json.loads((run / "log.jsonl").read_text().splitlines()[-1])["step"] == first
    train.main(["--resume", "--out", str(run)])  # nothing more happens
    assert looks(run)[0] == list(range(first + 1))


def test_killed_and_resumed_it_keeps_the_same_and_looks_as_often(tiny, photos, spoiled, tmp_path):
    run, one_step = tmp_path / "run", train.one_step
    for stop in (2, 3, 7):  # between checkpoints: what was best then must come from the state, or be found again
        more = flags(tiny, photos, run, "--keep", "best", "--save_every", "2") if stop == 2 else []
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(
                train,
                "one_step",
                lambda cfg, step, *rest, stop=stop: (
                    one_step(cfg, step, *rest) if step < stop else (_ for _ in ()).throw(KeyboardInterrupt)
                ),
            )
            with pytest.raises(KeyboardInterrupt):
                train.main(more or ["--resume", "--out", str(run)])
    train.main(["--resume", "--out", str(run)])
    assert looks(run) == looks(spoiled)
    assert all((run / name).read_bytes() == (spoiled / name).read_bytes() for name in FILES)


def test_a_state_without_its_best_weights_is_of_another_run(tiny, photos, tmp_path):
    run = tmp_path / "run"
    train.main(flags(tiny, photos, run, "--steps", "1"))
    config = run / "config.toml"
    config.write_text(config.read_text().replace('keep = "last"', 'keep = "best"'))
    with pytest.raises(ValueError, match="made by another run, [0-9]+ tensors missing and 0 not expected, first best/"):
        train.main(["--resume", "--out", str(run)])


def test_what_decides_nothing_is_not_in_the_file(tiny, photos, tmp_path):
    for keep in ("last", "best"):
        train.main(flags(tiny, photos, tmp_path / keep, "--steps", "1", "--adapter", "bitfit", "--keep", keep))
    told = [weights.load_adapter(tmp_path / keep / "adapter.safetensors")[1]["config"] for keep in ("last", "best")]
    assert "keep" not in told[0] and "stop_corrupted" not in told[0]
    assert told[1] == told[0] | {"keep": "best", "stop_corrupted": False}


@pytest.mark.parametrize("recipe", ["text", "dreambooth"])
def test_samples_of_prompts_are_measured_too(tiny_sd, tmp_path, recipe):
    run = tmp_path / "run"
    train.main(
        [
            "--recipe",
            recipe,
            "--model",
            str(tiny_sd),
            "--data",
            "generated:hazelnut/few/1",
            "--size",
            "16",
            "--steps",
            "2",
            "--batch",
            "2",
            "--sample_steps",
            "2",
            "--count",
            "1",
            "--cache",
            "",
            "--adapter",
            "lora:rank=1",
            "--prior_weight",
            "0",
            "--keep",
            "best",
            "--prompts",
            "a hole",
            "--prompts",
            "a pill",
            "--out",
            str(run),
        ]
    )
    assert looks(run)[0] == [0, 2] and all(-1 <= f <= 1 for f in looks(run)[1])


@pytest.mark.parametrize("recipe", ["autoencoder", "classifier", "consistency", "control"])
@pytest.mark.parametrize("more", [["--keep", "best"], ["--stop_corrupted"]])
def test_a_recipe_that_measures_no_samples_cannot_go_by_them(recipe, more):
    with pytest.raises(ValueError, match=f"go by measured samples, and the recipe {recipe} measures none"):
        train.configure(["--recipe", recipe, *more])


def test_weights_to_keep_are_the_last_or_the_best():
    with pytest.raises(ValueError, match="keep must be last or best, found 'first'"):
        train.configure(["--keep", "first"])


def planted(run, fidelity):
    lines = [{"step": i + 1, "loss": 1.0} for i in range(50)]
    lines += [
        {
            "step": 10 * i,
            "feature_similarity": f,
            "feature_similarity_deviation": 0.01,
            "noise_residual": 2 - f,
            "noise_residual_deviation": 0.01,
        }
        for i, f in enumerate(fidelity)
    ]
    run.mkdir()
    (run / "log.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    return run


def test_the_picture_marks_the_stage_and_the_best_look(tmp_path):
    Figure = pytest.importorskip("matplotlib.figure").Figure
    for name, curve, shaded, ringed in (
        ("dip", [0.5, 0.8, 0.6, 0.5, 0.7, 0.8], [(20, 40)], 10),
        ("none", [0.5, 0.6, 0.7, 0.8, 0.9, 0.95], [], 50),
    ):
        run = planted(tmp_path / name, curve)
        axes = Figure().subplots()
        samples(axes, *looks(run))
        assert [(patch.get_x(), patch.get_x() + patch.get_width()) for patch in axes.patches] == shaded
        assert (ringed,) in [tuple(line.get_xdata()) for line in axes.lines]


def test_the_panel_of_samples_is_only_there_where_some_were_measured(tmp_path, capsys):
    pytest.importorskip("matplotlib")
    heights = []
    for name, curve in (("none", []), ("dip", [0.5, 0.8, 0.6, 0.5, 0.7, 0.8])):
        plot(planted(tmp_path / name, curve))
        heights.append(Image.open(tmp_path / name / "loss.png").height)
    assert heights[1] > heights[0]
    told = capsys.readouterr().out.splitlines()
    assert told == ["corruption stage: from step 20 to 40 the samples are noisy and unlike the images"]

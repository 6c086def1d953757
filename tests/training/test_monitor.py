"""Watching samples: what an evaluation measures, keeping the best weights, ending a corrupted run."""

import json

import numpy as np
import pytest
import torch
from PIL import Image, ImageFilter

import sample
import train
import weights
from data import load
from data.transforms import Transform
from metrics.statistics.corruption import best, stage
from recipes.settings import check
from tests.test_train import killed_before
from training import monitor as module
from training.monitor import measurements, monitor

CPU = torch.device("cpu")
FILES = ("model.safetensors", "checkpoint/state.safetensors")
SETTINGS = (
    "--adapter full --steps 9 --batch 4 --sample-every 1 --sample-steps 2 --count 8 --measure 0 --precision fp32 "
    "--cache= --lr-schedule constant --ema 0 --lr 10 --warmup 50 --features tiny-features"
).split()


def flags(tiny, photos, out, *more):
    models = ["--model", str(tiny / "dit.safetensors"), "--vae", str(tiny / "vae.safetensors")]
    return [*models, "--data", str(photos), *SETTINGS, "--out", str(out), *more]


def measured(few, shown, samples, decides=False):
    return monitor(*few, shown, decides, CPU)(samples)


@pytest.fixture(scope="module")
def photos(tiny, tmp_path_factory):
    """Images that the model draws itself: nothing is left to learn, and a rate that goes on rising can but corrupt."""
    folder = tmp_path_factory.mktemp("monitor")
    photos = folder / "photos"
    (photos / "crack").mkdir(parents=True)
    Image.new("RGB", (16, 16), (90, 90, 90)).save(photos / "crack" / "0.png")
    train.main(flags(tiny, photos, folder / "run", "--steps", "1", "--lr", "1e-30", "--adapter", "lora"))
    sample.main(["--run", str(folder / "run"), "--count", "8", "--out", str(folder / "drawn")])
    for i, path in enumerate(sorted((folder / "drawn").glob("crack_*.png"))):
        Image.open(path).filter(ImageFilter.MedianFilter(3)).save(photos / "crack" / f"{i}.png")  # without their noise
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
    numbers = measured(few, few[1], few[0])
    assert numbers["feature_similarity"] == pytest.approx(1, abs=1e-5)
    assert numbers["noise_residual"] == pytest.approx(1, rel=1e-5)
    assert numbers["feature_similarity_deviation"] < 1e-4 < numbers["noise_residual_deviation"]
    noise = np.random.default_rng(0).normal(0, 60, few[0].shape)
    noisy = measured(few, few[1], (few[0] + noise).clip(0, 255).astype(np.uint8))
    assert noisy["feature_similarity"] < 0.98 and noisy["noise_residual"] > 20


def test_a_sample_is_compared_with_images_of_its_class_or_with_all_if_there_is_none(few):
    pixels, classes = few
    shown = np.stack([pixels[0]] * 4)  # a good one
    own, other, new = (
        measured(few, [name] * 4, shown)["feature_similarity"] for name in (classes[0], classes[2], "a prompt")
    )
    assert own == pytest.approx(1, abs=1e-5) == new and other < 0.99


def test_many_training_images_are_thinned_out(few, monkeypatch):
    pixels, classes = few
    monkeypatch.setattr(module, "KNOWN", 5)  # every second one, the first of each class
    measure = monitor(pixels, classes, classes[1::2], False, CPU)
    assert measure(pixels[::2])["feature_similarity"] == pytest.approx(1, abs=1e-5)
    assert measure(pixels[1::2])["feature_similarity"] < 0.999


def test_one_sample_tells_no_noise(few, tiny, tmp_path):
    assert measured(few, ["crack"], few[0][:1]) == {}
    words = "need 2 samples in an evaluation .* found 1: give a higher --count"
    with pytest.raises(ValueError, match=words):
        measured(few, ["crack"], few[0][:1], decides=True)
    (tmp_path / "photos" / "crack").mkdir(parents=True)
    Image.fromarray(few[0][0]).save(tmp_path / "photos" / "crack" / "0.png")
    for more in (["--keep", "best"], ["--stop-corrupted"]):
        with pytest.raises(ValueError, match=words):
            train.main(flags(tiny, tmp_path / "photos", tmp_path / "run", "--count", "1", *more))


def test_a_rate_that_corrupts_is_caught_and_the_best_evaluation_is_left(tiny, photos, spoiled, tmp_path):
    steps, *curves = measurements(spoiled)
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
    train.main(flags(tiny, photos, run, "--stop-corrupted"))
    first, _ = stage(*measurements(spoiled))
    assert f"the samples of step {first} are corrupted, and the run ends here" in capsys.readouterr().err
    assert measurements(run)[0] == list(range(first + 1))
    train.main(flags(tiny, photos, tmp_path / "short", "--steps", str(first)))
    assert (run / FILES[0]).read_bytes() == (tmp_path / "short" / FILES[0]).read_bytes()
    assert json.loads((run / "log.jsonl").read_text().splitlines()[-1])["step"] == first
    train.main(["--resume", "--out", str(run)])  # nothing more happens
    assert measurements(run)[0] == list(range(first + 1))


def test_killed_and_resumed_it_keeps_the_same_and_evaluates_as_often(tiny, photos, spoiled, tmp_path):
    run = tmp_path / "run"
    for stop in (2, 3, 7):  # between checkpoints: what was best then must come from the state, or be found again
        first = flags(tiny, photos, run, "--keep", "best", "--save-every", "2")
        killed_before(stop, first if stop == 2 else ["--resume", "--out", str(run)])
    train.main(["--resume", "--out", str(run)])
    assert measurements(run) == measurements(spoiled)
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
    assert told[1] == told[0] | {"keep": "best", "stop_corrupted": False, "features": "tiny-features"}


@pytest.mark.parametrize("recipe", ["text", "dreambooth"])
def test_samples_of_prompts_are_measured_too(tiny_sd, tmp_path, recipe):
    run = tmp_path / "run"
    settings = "--size 16 --steps 2 --batch 2 --sample-steps 2 --count 1 --cache= --adapter lora:rank=1 --keep best"
    prior = ["--prior-weight", "0"] if recipe == "dreambooth" else []
    prompts = ["--prompts", "a hole", "--prompts", "a pill"]
    base = ["--recipe", recipe, "--model", str(tiny_sd), "--data", "generated:hazelnut/few/1", "--out", str(run)]
    train.main([*base, *settings.split(), *prior, *prompts])
    assert measurements(run)[0] == [0, 2] and all(-1 <= f <= 1 for f in measurements(run)[1])


MODELS = {"autoencoder": "new:VAE-T", "classifier": "new:Features"}


@pytest.mark.parametrize("recipe", ["autoencoder", "classifier", "consistency", "control"])
@pytest.mark.parametrize("more", [{"keep": "best"}, {"stop_corrupted": True}])
def test_a_recipe_that_measures_no_samples_cannot_go_by_them(recipe, more):
    flag = "--" + next(iter(more)).replace("_", "-")
    words = f"{flag} is read by class_label, text, dreambooth and textual_inversion, not by {recipe}"
    with pytest.raises(ValueError, match=words):
        check({"recipe": recipe, "model": MODELS.get(recipe, "tiny-dit")} | more)


def test_weights_to_keep_are_the_last_or_the_best():
    with pytest.raises(ValueError, match="--keep must be one of last, best, found 'first'"):
        check({"keep": "first"})


def test_what_a_scorer_finds_says_which_step_is_best(tmp_path):
    """Not step 0, the first of equals; where it finds nothing, likeness decides. Weights of that step are kept."""

    def write(*combined):
        likeness = {"feature_similarity": 0.9, "feature_similarity_deviation": 0.01, "noise_residual": 1.0}
        looks = [
            likeness | {"step": 10 * i, "noise_residual_deviation": 0.01, "scores": {"combined": score}}
            for i, score in enumerate(combined)
        ]
        lines = [line for look in looks for line in (look, {"step": look["step"] + 10, "loss": 1.0})]
        text = "".join(json.dumps(line) + "\n" for line in lines)
        (tmp_path / "log.jsonl").write_text(text)

    write(0.9, 0.2, 0.6, 0.6)
    assert module.best_score(tmp_path) == (20, 0.6) and module.best_step(tmp_path) == 20
    kept = {"w": torch.zeros(2)}
    module.keep_best(tmp_path, 30, {"w": torch.ones(2)}, kept)
    assert kept["w"].tolist() == [0, 0]
    module.keep_best(tmp_path, 20, {"w": torch.ones(2)}, kept)
    assert kept["w"].tolist() == [1, 1]
    write(0.0, 0.0, 0.0)
    assert module.best_score(tmp_path)[1] == 0 and module.best_step(tmp_path) == best(*measurements(tmp_path)) == 10
    assert module.best_score(tmp_path / "none") == (0, 0.0)

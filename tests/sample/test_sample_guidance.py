"""sample.py with every kind of guidance, on a run with rows of superclasses and on Stable Diffusion."""

import numpy as np
import pytest
from PIL import Image

import sample
import train
import weights
from tests.test_train import flags

HOLE = ["--classes", "hazelnut/hole", "--count", "1", "--steps", "4", "--precision", "fp32"]
TEXT = ["--prompt", "a hazelnut with a hole", "--count", "1", "--steps", "4", "--precision", "fp32"]


@pytest.fixture(scope="module")
def run(tiny, tmp_path_factory):
    folder = tmp_path_factory.mktemp("runs") / "run"
    train.main(flags(tiny, folder, "--superclass", "0.5", "--lr", "0.05", "--warmup", "0", "--class-init", "random"))
    return folder


def drawn(folder, *argv):
    """What sample.py draws with these flags: its one image."""
    sample.main([*argv, "--out", str(folder)])
    (path,) = folder.glob("*_000.png")
    return np.asarray(Image.open(path)).astype(int)


def test_the_run_knows_its_superclass(run):
    recipe = weights.load_adapter(run / "adapter.safetensors")[1]
    assert recipe["classes"][5:] == ["hazelnut"] and set(recipe["parents"].values()) == {"hazelnut"}
    assert set(recipe["parents"]) == set(recipe["classes"][:5]) and len(recipe["sources"]) == 6


def test_it_draws_the_samples_that_training_showed(run, tmp_path):
    """Guidance leads from the superclass without being told; the superclass is no column of its own."""
    sample.main(["--run", str(run), "--count", "1", "--steps", "2", "--out", str(tmp_path), "--precision", "fp32"])
    last = np.asarray(Image.open(run / "samples" / "step_000006.png")).astype(int)
    grid = np.asarray(Image.open(tmp_path / "grid.png")).astype(int)
    assert np.abs(grid - last).max() <= 1 and len(list(tmp_path.glob("*_000.png"))) == 5


def test_every_flag_of_guidance_changes_what_is_drawn(run, tmp_path):
    ways = {
        "superclass": [],
        "null": ["--guidance-from", "null"],
        "stages": ["--superclass-guidance", "2"],
        "also": ["--also", "hazelnut/crack:4"],
        "without": ["--without", "hazelnut/crack:4"],
        "interval": ["--interval", "300,700"],
        "none": ["--guidance", "1"],
    }
    images = [drawn(tmp_path / name, "--run", str(run), *HOLE, *more) for name, more in ways.items()]
    assert all(np.abs(a - b).max() > 0 for i, a in enumerate(images) for b in images[:i])


def test_the_equation_has_its_special_cases(run, tmp_path):
    pairs = [
        ("", "--guidance-from superclass"),
        ("", "--interval 0,999"),
        ("--superclass-guidance 3", "--guidance-from null"),
        ("--guidance 1", "--guidance 5 --interval 1,1"),  # none of the four steps is step 1
        ("--guidance-from null --also hole:2", "--guidance-from null --guidance 5"),
        ("--also hole:2", "--guidance 5 --superclass-guidance 3"),  # in both the superclass weighs -2
    ]
    for number, pair in enumerate(pairs):
        a, b = (
            drawn(tmp_path / f"{number}{side}", "--run", str(run), *HOLE, *more.split())
            for side, more in zip("ab", pair)
        )
        assert np.abs(a - b).max() <= 1, pair


@pytest.mark.parametrize(
    ("more", "words"),
    [
        (["--guidance-from", "top"], "--guidance-from must be one of .*null, superclass, found 'top'"),
        (
            ["--classes", "hazelnut", "--guidance-from", "superclass"],
            "the model has no superclass of 'hazelnut'; train.py",
        ),
        (["--superclass", "a nut"], "--superclass is read by a Stable Diffusion .*, not by a DiT of a run"),
        (["--interval", "700,300"], "interval must be LOW,HIGH"),
        (["--also", "walnut:3"], "class 'walnut' is unknown"),
        (["--without", "hole:much"], "--without must be WHAT:WEIGHT"),
    ],
)
def test_a_wrong_request_is_one_sentence(run, tmp_path, more, words):
    with pytest.raises(ValueError, match=words):
        sample.main(["--run", str(run), *HOLE, "--out", str(tmp_path), *more])


def test_a_model_without_superclasses_says_how_to_train_them(tiny, tmp_path):
    model = ["--model", str(tiny / "dit.safetensors"), "--vae", str(tiny / "vae.safetensors"), "--classes", "0"]
    with pytest.raises(ValueError, match="no superclass of 'pill/good'; train.py --superclass 0.1 trains super"):
        sample.main([*model, "--guidance-from", "superclass", "--out", str(tmp_path)])


def test_a_table_without_a_null_row_draws_with_superclasses_and_not_without(tiny, tmp_path):
    """As FineDiffusion was published."""
    model = weights.load(tiny / "dit.safetensors", num_classes=6, class_dropout=0.0)  # null's row is a superclass now
    names = [*model.classes, "pill"]
    card = {"classes": names, "parents": dict.fromkeys(names[:3], "pill")}
    weights.save_model(model, tmp_path / "dit.safetensors", card=card)
    common = ["--model", str(tmp_path / "dit.safetensors"), "--vae", str(tiny / "vae.safetensors")]
    common += "--count 1 --steps 2 --precision fp32".split()
    a = drawn(tmp_path / "a", *common, "--classes", "pill/hole")
    b = drawn(tmp_path / "b", *common, "--classes", "pill/hole", "--guidance", "1")
    assert np.abs(a - b).max() > 0
    with pytest.raises(ValueError, match="guidance 3.0 needs a null condition"):
        sample.main([*common, "--classes", "tile/good", "--out", str(tmp_path / "c")])


def test_prompts_have_every_kind_of_guidance_too(tiny_sd, tmp_path):
    ways = {
        "null": [],
        "superclass": ["--superclass", "a hazelnut"],
        "stages": ["--superclass", "a hazelnut", "--superclass-guidance", "2"],
        "also": ["--also", "a flawless pill:4"],
        "without": ["--without", "a flawless pill:4"],
        "interval": ["--interval", "300,700"],
    }
    images = [drawn(tmp_path / name, "--model", str(tiny_sd), *TEXT, *more) for name, more in ways.items()]
    assert all(np.abs(a - b).max() > 0 for i, a in enumerate(images) for b in images[:i])
    negative = drawn(tmp_path / "negative", "--model", str(tiny_sd), *TEXT, "--negative", "a hazelnut")
    assert np.abs(negative - images[1]).max() <= 1  # guidance from a superclass is that from a null, there


def test_guidance_from_a_superclass_needs_its_prompt(tiny_sd, tmp_path):
    with pytest.raises(ValueError, match="guidance from a superclass needs its prompt, --superclass TEXT"):
        sample.main(["--model", str(tiny_sd), *TEXT, "--guidance-from", "superclass", "--out", str(tmp_path)])

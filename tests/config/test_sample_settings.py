"""Which settings sample.py reads: the whole table of models and settings, made from the parts themselves."""

import dataclasses
from pathlib import Path

import pytest

from config.option import choices_of, default_of, flag
from inference import settings as call_settings
from weights.formats.published import SHIPPED

FIELDS = {field.name: field for part in call_settings.all_parts() for field in dataclasses.fields(part)}
FILL = ["--image", "x", "--mask", "x"]
NEEDS = {"strength": FILL[:2], "mask": FILL[:2], "window": FILL, "resample": FILL, "jump": [*FILL, "--resample", "2"]}
NEEDS |= {"product": FILL} | {name: [*FILL, "--product", "x"] for name in ("defect", "candidates", "least")}
NEEDS["variance"] = ["--sampler", "ddpm"]


@pytest.fixture(scope="module")
def sources(tmp_path_factory):
    """Row of the table -> the flags that choose it."""
    folders = {}
    for name, model in (("a DiT", "tiny-dit/model.safetensors"), ("a Stable Diffusion", "tiny-sd")):
        run = folders[name] = tmp_path_factory.mktemp("run")
        (run / "config.toml").write_text('recipe = "class_label"\nmodel = "tiny-dit"\n')
        (run / ("model.safetensors" if model.endswith("safetensors") else "model")).symlink_to(SHIPPED / model)
    return {"a DiT": ["--model", "tiny-dit"], "a Stable Diffusion": ["--model", "tiny-sd"]} | {
        f"{name} of a run": ["--run", str(run)] for name, run in folders.items()
    }


def other_flags(field):
    """The flag of a field with a value that is not its default."""
    default = default_of(field)
    if field.name == "window":
        return ["--window", "2"]
    if isinstance(default, bool):
        return [flag(field.name)]
    if isinstance(default, (int, float)):
        value = default + 1 if not isinstance(default, float) else default / 2 + 0.25
    elif choices_of(field):
        value = next(choice for choice in choices_of(field) if choice not in (default, "superclass"))
    else:
        value = {"device": "cpu", "interval": "10,90", "also": "x:2", "without": "x:2", "size": "64"}
        value |= {"original_size": "60x80", "target_size": "64", "crop_offset": "3,4"}
        value = value.get(field.name, "x")
    return [flag(field.name), str(value)]


@pytest.mark.parametrize("row", call_settings.PARTS)
def test_every_setting_is_read_or_refused(row, sources):
    read = {field.name for part in call_settings.PARTS[row] for field in dataclasses.fields(part)}
    assert call_settings.configure(sources[row])[0].values.keys() == read
    for name, field in FIELDS.items():
        if name in ("run", "model", "adapter", "like"):  # these name files that are read
            continue
        argv = [*sources[row], *NEEDS.get(name, []), *other_flags(field)]
        if name in read:
            assert call_settings.configure(argv)[0].values[name] != default_of(field), name
        else:
            with pytest.raises(ValueError, match=f"{flag(name)} is read by .*, not by {row}"):
                call_settings.configure(argv)


def test_a_mask_is_filled_at_the_scale_that_the_run_was_trained_at(sources):
    config = Path(sources["a DiT of a run"][1], "config.toml")
    text = config.read_text()
    config.write_text(text + "window = 2.5\n")
    argv = [*sources["a DiT of a run"], *FILL]
    assert call_settings.configure(argv)[0].values["window"] == 2.5
    assert call_settings.configure([*argv, "--window", "0"])[0].values["window"] == 0
    assert call_settings.configure(sources["a DiT of a run"])[0].values["window"] == 0  # without a mask
    config.write_text(text)


@pytest.mark.parametrize(
    "argv, words",
    [
        (["--negative", "x"], "--negative is read by a Stable Diffusion and a Stable Diffusion of a run, not by a DiT"),
        (["--embedding", "x.pt"], "--embedding is read by"),
        (["--prompt", "a nut"], "--prompt is read by"),
        (["--model", "tiny-sd", "--classes", "1"], "--classes is read by a DiT and a DiT of a run"),
        (["--model", "tiny-sd", "--vae", "x"], "--vae is read by a DiT, not by a Stable Diffusion"),
        (["--strength", "0.3"], "--strength has no effect without --image"),
        (["--mask", "x"], "--mask has no effect without --image"),
        (["--window", "2", "--image", "x"], "--window has no effect without --mask"),
        ([*FILL, "--window", "0.5"], "--window must be 0 or at least 1"),
        ([*FILL, "--candidates", "2"], "--candidates has no effect without --product"),
        ([*FILL, "--product", "a/b"], "--product is the name of a folder, without /"),
        ([*FILL, "--jump", "5"], "--jump has no effect without --resample"),
        (["--strength", "0", "--image", "x"], "--strength must be above 0 and at most 1"),
        (["--model", "tiny-sd", "--negative", "x", "--guidance", "1"], "--negative has no effect at guidance 1"),
        (["--guidance", "nan"], "--guidance must be a finite number"),
        (["--count", "0"], "--count must be at least 1"),
        (["--device", "xyz"], "device must be .* found 'xyz'"),
        (["--sampler", "euler"], "--sampler must be one of ddpm, ddim"),
        (["--eta", "0.5", "--sampler", "ddpm"], "--eta is read by --sampler ddim, not by ddpm"),
        (["--eta", "1.5"], "--eta must be at least 0 and at most 1, found 1.5"),
        (["--variance", "small"], "--variance is read by --sampler ddpm, not by ddim"),
        (["--variance", "none", "--sampler", "ddpm"], "--variance must be one of empty, learned, small, large"),
        (["--weights", "median"], "--weights must be one of mean, sampled"),
        (["--steps", "0"], "--steps must be at least 1"),
        (["--also", "hole"], "--also must be WHAT:WEIGHT"),
        (["--interval", "9,1"], "interval must be LOW,HIGH"),
    ],
)
def test_what_has_no_effect_or_no_sense_is_one_sentence(argv, words):
    with pytest.raises(ValueError, match=words):
        call_settings.configure(argv)


def test_model_beside_run_is_refused(sources):
    with pytest.raises(ValueError, match="--model is read by a DiT and a Stable Diffusion, not by a DiT of a run"):
        call_settings.configure([*sources["a DiT of a run"], "--model", "tiny-dit"])
    assert Path(sources["a DiT of a run"][1]).is_dir()

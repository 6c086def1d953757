"""Run folders of the version before: its flat settings, its keys in the log and its headers are read to this day."""

import json

import numpy as np
import pytest
import torch
from PIL import Image

import sample
import train
import weights
from config.training import (
    Adapter,
    ClassRows,
    Denoising,
    Images,
    Loop,
    NewWord,
    Prior,
    Run,
    Sampling,
    Stopping,
    Teacher,
)
from inference.settings import sampling_defaults
from recipes.settings import configure
from tests.test_train import flags, killed_before
from training.log import RENAMED
from training.monitor import measurements
from training.plot import plot
from weights.formats import safe

OLD = {  # every setting that a config.toml of the version before holds, with its default, in its order
    "model": "tiny-dit",
    "vae": "tiny-vae",
    "recipe": "class_label",
    "data": "generated:hazelnut/few/20",
    "val": "",
    "template": "",
    "prompts": [],
    "token": "",
    "token_start": "",
    "vectors": 1,
    "class_prompt": "",
    "class_images": 100,
    "prior_weight": 1.0,
    "adapter": ["bitfit", "norm"],
    "init": [],
    "start": "name",
    "steps": 900,
    "batch": 32,
    "accumulate": 1,
    "lr": 0.003,
    "text_lr": 0.0,
    "weight_decay": 0.0,
    "lr_schedule": "cosine",
    "warmup": 20,
    "clip": 1.0,
    "ema": 0.99,
    "drop": 0.1,
    "superclass": 0.0,
    "hierarchy": "",
    "noise_schedule": "fixed",
    "noise_offset": 0.0,
    "mask_weight": 1.0,
    "min_snr": 0.0,
    "size": 0,
    "crop": 0,
    "resize": "resize",
    "flips": "hv",
    "rotations": "0,90,180,270",
    "precision": "auto",
    "device": "auto",
    "seed": 0,
    "out": "",
    "resume": False,
    "save_every": 150,
    "sample_every": 300,
    "keep": "last",
    "stop_corrupted": False,
    "count": 4,
    "sampler": "ddim",
    "sample_steps": 50,
    "guidance": 3.0,
    "measure": 20,
    "cache": ".cache",
}
NEW_NAMES = {"drop": "cond_dropout", "start": "class_init", "token_start": "token_init"}
ONCE = {today: old for old, today in RENAMED.items()}  # the log's keys


def old_settings(values):
    """The settings of today under the names, and beside the other settings, of the version before."""
    return OLD | {old: values[NEW_NAMES.get(old, old)] for old in OLD if NEW_NAMES.get(old, old) in values}


def write_config(run, values):
    """config.toml as that version wrote it: a line a setting, text in JSON's quotes."""
    run.mkdir(exist_ok=True)
    lines = (
        f"{name} = {value!r}" if isinstance(value, float) else f"{name} = {json.dumps(value)}"
        for name, value in values.items()
    )
    (run / "config.toml").write_text("".join(f"{line}\n" for line in lines))


def make_old(run):
    """Write the files of a run of today as the version before would have written them."""
    values = configure(["--resume", "--out", str(run)], "").values
    write_config(run, old_settings(values | {"out": str(run), "resume": False}))
    lines = [json.loads(line) for line in (run / "log.jsonl").read_text().splitlines()]
    old = [{ONCE.get(key, key): value for key, value in line.items()} for line in lines]
    assert not any(key in RENAMED.values() for line in old for key in line)
    (run / "log.jsonl").write_text("".join(json.dumps(line) + "\n" for line in old))
    file = run / "adapter.safetensors"
    if file.exists():
        tensors, metadata = weights.read(file)
        tensors, header = {name: tensor.clone() for name, tensor in tensors.items()}, json.loads(metadata["graft"])
        header["config"] = old_settings(header["config"])
        safe.write(file, tensors, {"graft": json.dumps(header)})
    return old


SETTINGS = "--keep best --class-init mean --cond-dropout 0.2 --lr 0.05 --sample-every 2".split()


@pytest.fixture(scope="module")
def whole(tiny, tmp_path_factory):
    """A run of today, left alone."""
    run = tmp_path_factory.mktemp("whole") / "run"
    train.main(flags(tiny, run, *SETTINGS))
    return run


def test_a_run_that_an_earlier_version_began_is_resumed(tiny, whole, tmp_path):
    """Its log decides what is best, and its settings, those that nothing reads too, make the run left alone."""
    run = tmp_path / "run"
    killed_before(3, flags(tiny, run, *SETTINGS))
    old = make_old(run)
    assert [line["fidelity"] for line in old if "fidelity" in line] and all(old)
    train.main(["--resume", "--out", str(run)])
    assert (run / "adapter.safetensors").read_bytes() == (whole / "adapter.safetensors").read_bytes()
    assert measurements(run) == measurements(whole)
    config = (run / "config.toml").read_text()
    assert 'class_init = "mean"' in config and "cond_dropout = 0.2" in config and "token" not in config
    configure(["--resume", "--out", str(run), "--start", "mean"], "")  # as it was typed then
    with pytest.raises(ValueError, match="the run has class_init = 'mean', and resuming cannot make it 'name'"):
        configure(["--resume", "--out", str(run), "--class-init", "name"], "")


def test_a_finished_run_of_an_earlier_version_is_plotted(tiny, whole, tmp_path):
    run = tmp_path / "run"
    train.main(flags(tiny, run, *SETTINGS))
    plotted = np.asarray(Image.open(run / "loss.png"))
    make_old(run)
    assert measurements(run) == measurements(whole) and len(measurements(run)[0]) == 4
    (run / "loss.png").unlink()
    plot(run)
    assert np.array_equal(np.asarray(Image.open(run / "loss.png")), plotted)


def test_a_finished_run_of_an_earlier_version_is_sampled_from(tiny, whole, tmp_path):
    run, fast = tmp_path / "run", "--count 1 --steps 2 --precision fp32".split()
    train.main(flags(tiny, run, *SETTINGS))
    make_old(run)
    for name, folder in (("old", run), ("new", whole)):
        sample.main(["--run", str(folder), *fast, "--out", str(tmp_path / name)])
    old, new = (np.asarray(Image.open(tmp_path / name / "grid.png")) for name in ("old", "new"))
    assert np.array_equal(old, new) and np.ptp(old) > 0
    base = ["--model", str(tiny / "dit.safetensors"), "--vae", str(tiny / "vae.safetensors")]
    sample.main([*base, "--adapter", str(run / "adapter.safetensors"), *fast, "--out", str(tmp_path / "file")])
    assert np.array_equal(np.asarray(Image.open(tmp_path / "file" / "grid.png")), new)


def test_a_run_of_captions_is_sampled_from_and_resumed(tiny_sd, tmp_path):
    run = tmp_path / "run"
    base = ["--recipe", "text", "--model", str(tiny_sd), "--data", "generated:hazelnut/few/1", "--out", str(run)]
    fast = "--size 16 --steps 2 --batch 2 --sample-steps 2 --count 1 --cache= --precision fp32 --save-every 1".split()
    what = "--adapter lora:rank=2 --prompts hole --prompts pill --cond-dropout 0.3".split()
    killed_before(1, [*base, *fast, *what])
    make_old(run)
    train.main(["--resume", "--out", str(run)])
    make_old(run)
    sample.main(
        ["--run", str(run), "--count", "1", "--steps", "2", "--precision", "fp32", "--out", str(tmp_path / "a")]
    )
    last, again = (
        np.asarray(Image.open(f)).astype(int)
        for f in (run / "samples" / "step_000002.png", tmp_path / "a" / "grid.png")
    )
    assert np.abs(again - last).max() <= 1  # its own prompts and size are known


def test_a_distilled_file_of_an_earlier_version_says_how_it_samples(tiny, tmp_path):
    """The student's sampler stood among the flat settings of its header, over the teacher's guidance."""
    config = OLD | {"recipe": "consistency", "sampler": "lcm", "sample_steps": 4, "guidance": 1.0}
    base = {"model": "DiT", "config": {"depth": 2}, "structure": "0", "content": "0"}
    header = {"kind": "adapter", "adapter": ["lora:rank=2"], "base": base, "config": config | {"teacher_guidance": 3.0}}
    file = tmp_path / "a.safetensors"
    safe.write(file, {"x": torch.zeros(1)}, {"graft": json.dumps(header)})
    assert sampling_defaults([(str(file), 1.0)]) == {"sampler": "lcm", "steps": 4, "guidance": 1.0}


def read(tmp_path, **values):
    """The settings that a run folder of the version before is resumed with."""
    write_config(tmp_path / "run", OLD | {"out": str(tmp_path / "run")} | values)
    return configure(["--resume", "--out", str(tmp_path / "run")], "")


@pytest.mark.parametrize(
    "recipe, model",
    [
        ("class_label", "tiny-dit"),
        ("text", "tiny-sd"),
        ("text", "new:SD-T"),
        ("textual_inversion", "tiny-sd"),
        ("consistency", "tiny-dit"),
        ("consistency", "tiny-sd"),
        ("control", "tiny-dit"),
        ("control", "tiny-sd"),
        ("autoencoder", "new:VAE-T"),
        ("classifier", "new:Features"),
    ],
)
def test_the_settings_of_an_earlier_version_are_read_with_their_values(recipe, model, tmp_path, capsys):
    """What the recipe did not read is passed over without a word: it stood in every file."""
    config = read(tmp_path, recipe=recipe, model=model, lr=0.5, flips="none", drop=0.25, start="mean", guidance=7.0)
    assert config[Run].recipe == recipe and config[Loop].lr == 0.5 and config[Images].flips == "none"
    if Denoising in config:
        assert config[Denoising].cond_dropout == 0.25
    assert recipe != "class_label" or config[ClassRows].class_init == "mean"
    scale = config[Teacher] if recipe == "consistency" else config[Sampling] if Sampling in config else None
    assert scale is None or scale.guidance == 7.0
    assert Stopping not in config or config[Stopping].keep == "last"
    assert Adapter not in config or config[Adapter].adapter == ["bitfit", "norm"]
    assert capsys.readouterr().err == ""


def test_the_settings_of_a_word_and_of_a_prior(tmp_path):
    word = {"token": "sks", "token_start": "bottle", "vectors": 2}
    config = read(tmp_path, recipe="dreambooth", model="tiny-sd", class_prompt="a bottle", class_images=7, **word)
    assert config[NewWord] == NewWord("sks", "bottle", 2) and config[Prior] == Prior("a bottle", 7, 1.0)


def test_settings_that_had_no_effect_then_do_not_stop_an_old_run(tmp_path):
    settings = {"class_prompt": "a bottle", "class_images": 7, "prior_weight": 0.0}
    config = read(tmp_path, recipe="dreambooth", model="tiny-sd", **settings)
    assert config[Prior].prior_weight == 0

"""A run with `noise_schedule = "progressive"`: what it learns with, what it draws with, and what its files say."""

import json
from importlib import import_module

import numpy as np
import pytest
import torch
from PIL import Image

import sample
import train
import weights
from recipes.objectives import denoise
from recipes.settings import check
from sampling.progressive import stage
from tests.test_train import flags
from weights.models.save import export_pipeline

class_label = import_module("recipes.class_label")  # the module; the package has the recipe under this name

PROGRESSIVE = ["--noise-schedule", "progressive"]


@pytest.fixture(scope="module")
def run(tiny, tmp_path_factory):
    folder = tmp_path_factory.mktemp("progressive") / "run"
    train.main(flags(tiny, folder, *PROGRESSIVE, "--adapter", "modulate", "--lr", "0.05", "--class-init", "features"))
    return folder


def read(path):
    return np.asarray(Image.open(path)).astype(int)


def drawn(out, *more):
    sample.main([*more, "--count", "1", "--steps", "2", "--out", str(out), "--precision", "fp32"])
    return read(out / "grid.png")


def test_sample_draws_with_the_last_stage_as_the_run_did(tiny, run, tmp_path):
    last = read(run / "samples" / "step_000006.png")
    assert np.abs(drawn(tmp_path / "run", "--run", str(run)) - last).max() <= 1 < np.ptp(last)
    base = ["--model", str(tiny / "dit.safetensors"), "--vae", str(tiny / "vae.safetensors")]
    file = run / "adapter.safetensors"
    assert np.abs(drawn(tmp_path / "file", *base, "--adapter", str(file)) - last).max() <= 1
    assert weights.load_adapter(file)[1]["config"]["noise_schedule"] == "progressive"


def test_a_whole_model_says_it_and_tuning_goes_on_from_there(tiny, tmp_path):
    whole, more = tmp_path / "whole", tmp_path / "more"
    init = ["--class-init", "features:generated:pill+tile/val/1"]
    train.main(flags(tiny, whole, *PROGRESSIVE, "--adapter", "full", "--steps", "1", *init))
    file, vae = whole / "model.safetensors", str(tiny / "vae.safetensors")
    assert weights.load(file).noise_schedule == "progressive"
    assert weights.load(tiny / "dit.safetensors").noise_schedule == "fixed"
    last = read(whole / "samples" / "step_000001.png")
    assert np.abs(drawn(tmp_path / "drawn", "--model", str(file), "--vae", vae) - last).max() <= 1
    # fixed is the file's own
    train.main(flags(tiny, more, "--model", str(file), "--adapter", "classes", "--steps", "1"))
    model = weights.apply_adapters(weights.load(file), [(more / "adapter.safetensors", 1.0)])
    assert model.noise_schedule == "progressive"


@pytest.mark.parametrize("name, stages", [("fixed", [0] * 8), ("progressive", [0, 0, 1, 2, 3, 3, 4, 5])])
def test_every_step_learns_with_the_betas_of_its_stage(tiny, tmp_path, monkeypatch, name, stages):
    """Eight steps, which six does not divide; the held-out loss is that of the last stage at all times."""
    seen, models = [], []
    denoising, diffusion_loss = class_label.denoising, denoise.diffusion_loss

    def of_model(model, *rest):
        models.append(model)
        return denoising(model, *rest)

    def seeing(out, x0, eps, x_t, t, schedule, *rest):
        seen.append((schedule, models[-1].training))
        return diffusion_loss(out, x0, eps, x_t, t, schedule, *rest)

    monkeypatch.setattr(class_label, "denoising", of_model)
    monkeypatch.setattr(denoise, "diffusion_loss", seeing)
    train.main(flags(tiny, tmp_path / "run", "--noise-schedule", name, "--steps", "8"))
    assert [schedule for schedule, training in seen if training] == [stage(k) for k in stages]
    assert {schedule for schedule, training in seen if not training} == {stage(stages[-1])}


def test_files_of_two_schedules_do_not_go_onto_one_model(tiny, run, tmp_path):
    train.main(flags(tiny, tmp_path / "fixed", "--adapter", "lora:rank=2", "--steps", "1", "--class-init", "features"))
    files = [(folder / "adapter.safetensors", 1.0) for folder in (run, tmp_path / "fixed")]
    with pytest.raises(ValueError, match="fixed.adapter.*: its noise_schedule fixed is not that of .*, progressive"):
        weights.apply_adapters(weights.load(tiny / "dit.safetensors"), files)


def test_a_diffusers_folder_gets_the_betas(tiny, tmp_path):
    model = weights.load(tiny / "dit.safetensors")
    for name in ("fixed", "progressive"):
        model.noise_schedule = name
        export_pipeline(model, tmp_path / name)
    fixed, ours = (
        json.loads((tmp_path / name / "scheduler" / "scheduler_config.json").read_text())
        for name in ("fixed", "progressive")
    )
    assert (fixed["beta_schedule"], fixed["beta_start"], fixed["beta_end"]) == ("linear", 0.0001, 0.02)
    betas = torch.tensor(ours["trained_betas"], dtype=torch.float64)
    assert torch.allclose(torch.cumprod(1 - betas, 0), stage(5).alpha_bar, rtol=1e-9)


@pytest.mark.parametrize(
    "values, message",
    [
        ({"noise_schedule": "cosine"}, "--noise-schedule must be one of fixed, progressive, found 'cosine'"),
        (
            {"recipe": "text", "model": "tiny-sd", "noise_schedule": "progressive"},
            "--noise-schedule is read by class_label, not by text",
        ),
    ],
)
def test_refused(values, message):
    with pytest.raises(ValueError, match=message):
        check(values)

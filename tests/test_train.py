"""A whole run on tiny models: the files it leaves, resuming to the byte, stopping, and what it refuses."""
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch

import train
import weights
from train import Config, batch_index, ema_decay, lr_factor

ROOT = Path(__file__).parent.parent


def flags(tiny, out, *more):
    return ["--model", str(tiny / "dit.safetensors"), "--vae", str(tiny / "vae.safetensors"), "--out", str(out),
            "--data", "generated:hazelnut/few/2", "--val", "generated:hazelnut/val/2", "--steps", "6", "--batch", "4",
            "--save-every", "2", "--sample-every", "3", "--sample-steps", "2", "--count", "1", "--measure", "0",
            "--precision", "fp32", "--warmup", "2", "--cache", "", *more]


def test_a_run_leaves_its_files(tiny, tmp_path, capsys):
    run = tmp_path / "run"
    train.main(flags(tiny, run, "--adapter", "lora:rank=2"))
    names = {str(path.relative_to(run)) for path in run.rglob("*") if path.is_file()}
    assert names >= {"config.toml", "log.jsonl", "adapter.safetensors", "checkpoint/state.safetensors", "loss.png",
                     "samples/step_000000.png", "samples/step_000003.png", "samples/step_000006.png"}
    lines = [json.loads(line) for line in (run / "log.jsonl").read_text().splitlines()]
    assert [line["step"] for line in lines if "loss" in line] == [1, 2, 3, 4, 5, 6]
    assert [line["step"] for line in lines if "val" in line] == [0, 3, 6]
    shown = capsys.readouterr().out
    assert "parameters train" in shown and "hazelnut/crack: starts from the mean of pill/crack, tile/crack" in shown
    tensors, recipe = weights.load_adapter(run / "adapter.safetensors")
    assert recipe["adapter"] == ["lora:rank=2", "classes"] and recipe["classes"][1] == "hazelnut/crack"
    assert any(name.endswith("lora_up") for name in tensors)


def test_a_run_ends_with_a_table_that_holds_its_rails(tiny, tmp_path, capsys):
    """Beside the samples' score: chance is one in five, the judge on real images, and on images through the latents."""
    run = tmp_path / "run"
    train.main(flags(tiny, run, "--measure", "2", "--steps", "1"))
    numbers = json.loads((run / "metrics.json").read_text())
    assert numbers["network"] == "tiny-features" and numbers["samples"] == 10
    assert set(numbers["asked_state_by_class"]) == {f"hazelnut/{s}" for s in ("good", "crack", "hole", "cut", "print")}
    assert all(0 <= numbers[name] <= 1 for name in ("asked_state", "asked_state_real", "asked_state_decoded", "copies"))
    assert "asked_state_decoded" in capsys.readouterr().out and (run / "grid.png").is_file()


def test_batches_exceed_the_set_and_every_image_is_seen_equally_often():
    seen = torch.cat([batch_index(5, 8, number, seed=0) for number in range(10)])
    assert torch.bincount(seen).tolist() == [16] * 5
    part = torch.bincount(seen[:32], minlength=5)
    assert part.max() - part.min() <= 1


def test_an_epoch_of_833_images_is_53_steps_of_16():
    """In four micro-batches each; after 100 steps every image was seen once, and 767 of them twice."""
    seen = torch.cat([batch_index(833, 4, number, seed=0) for number in range(400)])
    whole = [len(seen[:16 * steps].unique()) for steps in (52, 53)]
    assert whole == [832, 833]
    assert torch.bincount(seen).bincount().tolist() == [0, 66, 767]


def test_accumulation_equals_the_larger_batch(tiny, tmp_path):
    """Two micro-batches of 4 see the images of one batch of 8; only the noise differs, so compare what is drawn."""
    whole = batch_index(10, 8, 0, seed=3)
    halves = torch.cat([batch_index(10, 4, number, seed=3) for number in (0, 1)])
    assert torch.equal(whole, halves)
    train.main(flags(tiny, tmp_path / "run", "--accumulate", "2", "--steps", "1"))


def test_resuming_gives_the_file_of_a_run_left_alone(tiny, tmp_path):
    whole, broken = tmp_path / "whole", tmp_path / "broken"
    train.main(flags(tiny, whole))
    one_step = train.one_step
    for stop in (2, 4):   # killed after the checkpoint of step 2, resumed, killed after step 4, resumed again
        more = flags(tiny, broken) if stop == 2 else ["--resume", "--out", str(broken)]
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(train, "one_step", lambda cfg, step, *rest, stop=stop: one_step(cfg, step, *rest)
                          if step < stop else (_ for _ in ()).throw(KeyboardInterrupt))
            with pytest.raises(KeyboardInterrupt):
                train.main(more)
    train.main(["--resume", "--out", str(broken)])
    assert (whole / "adapter.safetensors").read_bytes() == (broken / "adapter.safetensors").read_bytes()
    steps = [json.loads(line)["step"] for line in (broken / "log.jsonl").read_text().splitlines() if "loss" in line]
    assert steps == [1, 2, 3, 4, 5, 6]


def test_a_signal_finishes_the_step_saves_and_leaves(tiny, tmp_path):
    run = tmp_path / "run"
    process = subprocess.Popen([sys.executable, "train.py", *flags(tiny, run, "--steps", "100000")], cwd=ROOT,
                               stderr=subprocess.PIPE, text=True, env=os.environ | {"OMP_NUM_THREADS": "1"})
    log = run / "log.jsonl"
    deadline = time.monotonic() + 60
    while not (log.exists() and log.read_text().count("loss") > 3) and time.monotonic() < deadline:
        time.sleep(0.1)
    process.send_signal(signal.SIGINT)
    _, shown = process.communicate(timeout=60)
    assert process.returncode == 128 + signal.SIGINT and "--resume" in shown
    done = max(json.loads(line)["step"] for line in log.read_text().splitlines() if "loss" in line)
    assert weights.read(run / "checkpoint" / "state.safetensors")[1]["graft"] == json.dumps(
        {"kind": "run state", "step": done})


def test_a_loss_that_is_not_finite_stops_before_the_update(tiny, tmp_path):
    run = tmp_path / "run"
    with pytest.raises(SystemExit) as leaving:
        train.main(flags(tiny, run, "--lr", "1e30", "--clip", "1e30", "--warmup", "0"))
    message = str(leaving.value)
    assert "nothing was updated" in message and "hazelnut/" in message
    assert not (run / "adapter.safetensors").exists()


def test_learning_rate_and_average():
    cfg = Config(steps=10, warmup=2, lr_schedule="cosine")
    assert [lr_factor(cfg, step) for step in (0, 1, 2)] == [0.5, 1.0, 1.0]
    assert lr_factor(cfg, 6) == pytest.approx(0.5)
    assert lr_factor(Config(steps=10, warmup=2, lr_schedule="constant"), 9) == 1.0
    cfg = Config(steps=20, warmup=2, lr_schedule="cooldown")
    assert [lr_factor(cfg, step) for step in (0, 2, 16, 17, 20)] == pytest.approx([0.5, 1, 1, 0.5, 0])
    assert ema_decay(0.99, 0) == pytest.approx(0.1) and ema_decay(0.99, 10_000) == 0.99


@pytest.mark.parametrize("decay, steps, share", [(0.9999, 100, 0.0099507), (0.9999, 1000, 0.095167)])
def test_a_long_average_forgets_too_slowly_for_a_short_run(decay, steps, share):
    """Share of new weights after so many steps at a fixed decay: 1 - decay^steps."""
    average = torch.zeros((), dtype=torch.float64)
    for _ in range(steps):
        average.lerp_(torch.ones((), dtype=torch.float64), 1 - decay)
    assert average.item() == pytest.approx(share, rel=1e-4)


@pytest.mark.parametrize("more, words", [
    (["--recipe", "class_lable"], "unknown recipe"),
    (["--lr-schedule", "linear"], "constant or cosine"),
    (["--steps", "0"], "steps must be at least 1"),
    (["--adapter", "lara"], "did you mean 'lora'"),
    (["--start", "walnut"], "none of name, nearest"),
    (["--rotations", "a"], "degrees"),
    (["--flips", "v"], "flips"),
    (["--data", "generated:walnut/few"], "walnut"),
    (["--data", "/no/such/folder"], "/no/such/folder"),
    (["--val", "generated:pill/val/2"], "same classes|classes of"),
    (["--sampler", "euler"], "sampler must be one of"),
    (["--size", "15"], "15|multiple"),
    (["--resume"], "--resume needs --out"),
])
def test_a_wrong_setting_is_one_sentence(tiny, tmp_path, more, words):
    with pytest.raises(ValueError, match=words):
        train.main(flags(tiny, tmp_path / "run", *more))


def test_a_run_folder_is_never_overwritten_and_a_resumed_one_never_changed(tiny, tmp_path):
    run = tmp_path / "run"
    train.main(flags(tiny, run, "--steps", "1"))
    with pytest.raises(ValueError, match="holds a run already: go on with it by --resume"):
        train.main(flags(tiny, run, "--steps", "1"))
    with pytest.raises(ValueError, match="the run has lr"):
        train.main(["--resume", "--out", str(run), "--lr", "1"])


@pytest.mark.parametrize("start", ["nearest", "mean", "random", "pill/good", "2"])
def test_new_class_rows_may_start_from_anything(tiny, tmp_path, start):
    train.main(flags(tiny, tmp_path / "run", "--steps", "1", "--start", start))


def test_pretraining_leaves_a_whole_model_that_fine_tuning_starts_from(tmp_path):
    vae = tmp_path / "vae"
    common = ["--steps", "2", "--batch", "4", "--size", "64", "--sample-steps", "2", "--count", "1", "--measure", "0",
              "--cache", "", "--rotations", "0", "--flips", "none", "--adapter", "full"]
    data = ["--data", "generated:hazelnut/few/1", "--val", "generated:hazelnut/val/1"]
    train.main(["--model", "new:VAE-T", "--recipe", "autoencoder", "--out", str(vae), *common, *data])
    train.main(["--model", "new:DiT-T/2", "--vae", str(vae / "model.safetensors"), "--out", str(tmp_path / "dit"),
                *common, *data])
    model = weights.load(tmp_path / "dit" / "model.safetensors")
    assert model.classes == [f"hazelnut/{state}" for state in ("good", "crack", "hole", "cut", "print")]


def test_the_judge_is_trained_by_the_same_loop(tmp_path):
    run = tmp_path / "features"
    train.main(["--model", "new:Features", "--recipe", "classifier", "--out", str(run), "--steps", "2", "--batch", "4",
                "--size", "32", "--adapter", "full", "--data", "generated:hazelnut/few/1", "--rotations", "0,90",
                "--val", "generated:hazelnut/val/1"])
    from metrics import features
    network, names = features.load(run / "model.safetensors")
    assert names[0] == "hazelnut/good" and network(torch.zeros(1, 3, 32, 32)).shape == (1, 5)

"""A whole run on tiny models: the files it leaves, resuming to the byte, stopping, and what it refuses."""

import copy
import json
import math
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from torch import nn

import adapters
import train
import weights
from config import Config
from config.training import Loop, Run
from data import load
from data.transforms import Transform, to_tensor
from metrics.networks import features
from recipes.job import Job
from recipes.models.class_rows import nearest_rows
from sampling import diffusion_loss, dit_schedule
from train import batch_index, ema_decay, lr_factor
from training.state import State, saved_steps
from training.stops import Stop

ROOT = Path(__file__).parent.parent
CLASSES = [f"hazelnut/{state}" for state in ("good", "crack", "hole", "cut", "print")]
SHORT = {
    "data": "generated:hazelnut/few/2",
    "val": "generated:hazelnut/val/2",
    "steps": "6",
    "batch": "4",
    "save-every": "2",
    "sample-every": "3",
    "sample-steps": "2",
    "count": "1",
    "measure": "0",
    "precision": "fp32",
    "warmup": "2",
    "cache": "",
}


def flags(tiny, out, *more, without=()):
    """Flags of a short run on the tiny models. without: the settings that the recipe in `more` does not read."""
    settings = {"model": str(tiny / "dit.safetensors"), "vae": str(tiny / "vae.safetensors"), "out": str(out)} | SHORT
    return [word for name in settings if name not in without for word in (f"--{name}", settings[name])] + [*more]


def killed_before(step, argv):
    """Train with these flags until `step` is about to begin, and die there without a chance to save anything."""
    one_step = train.one_step

    def until(options, settings, now, *rest):
        if now >= step:
            raise KeyboardInterrupt
        return one_step(options, settings, now, *rest)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(train, "one_step", until)
        with pytest.raises(KeyboardInterrupt):
            train.main(argv)


def test_a_protocol_of_epochs_runs_and_resumes(tiny, tmp_path):
    """configs/defect_study_dit_xl.toml on the tiny models: 10 images, 8 in a step, one pass."""
    study, run = ROOT / "configs" / "defect_study_dit_xl.toml", tmp_path / "run"
    more = "--class-init name --crop 48 --size 16 --epochs 1".split()
    argv = [str(study), *flags(tiny, run, *more, without={"steps", "warmup"})]
    train.main(argv)
    assert [line["step"] for line in map(json.loads, (run / "log.jsonl").open()) if "loss" in line] == [1, 2]
    assert "steps = 2\nepochs = 1\n" in (run / "config.toml").read_text()
    train.main(["--resume", "--out", str(run)])


def test_a_run_leaves_its_files(tiny, tmp_path, capsys):
    run = tmp_path / "run"
    train.main(flags(tiny, run, "--adapter", "lora:rank=2"))
    names = {str(path.relative_to(run)) for path in run.rglob("*") if path.is_file()}
    assert names >= {
        "config.toml",
        "log.jsonl",
        "adapter.safetensors",
        "checkpoint/state.safetensors",
        "loss.png",
        "index.html",
        "nearest.png",
        "samples/step_000000.png",
        "samples/step_000003.png",
        "samples/step_000006.png",
    }
    lines = [json.loads(line) for line in (run / "log.jsonl").read_text().splitlines()]
    assert [line["step"] for line in lines if "loss" in line] == [1, 2, 3, 4, 5, 6]
    assert [line["step"] for line in lines if "val" in line] == [0, 3, 6]
    shown = capsys.readouterr().out
    assert "parameters train" in shown and "hazelnut/crack: starts from the mean of pill/crack, tile/crack" in shown
    tensors, recipe = weights.load_adapter(run / "adapter.safetensors")
    assert recipe["adapter"] == ["lora:rank=2", "classes"] and recipe["classes"][1] == "hazelnut/crack"
    assert any(name.endswith("lora_up") for name in tensors)


def test_a_run_ends_with_a_table_that_holds_its_rails(tiny, tmp_path, capsys):
    """Beside the samples' score: chance is one in five, the classifier on real images, and on images that were encoded
    and decoded.
    """
    run = tmp_path / "run"
    train.main(flags(tiny, run, "--measure", "2", "--steps", "1"))
    numbers = json.loads((run / "metrics.json").read_text())
    assert numbers["network"] == "tiny-features" and numbers["samples"] == 10
    assert set(numbers["class_accuracy_by_class"]) == set(CLASSES)
    assert all(
        0 <= numbers[name] <= 1
        for name in ("class_accuracy", "class_accuracy_real", "class_accuracy_decoded", "copies")
    )
    shown = capsys.readouterr().out
    assert "the same of decoded ones" in shown and (run / "grid.png").is_file()


def test_batches_exceed_the_set_and_every_image_is_seen_equally_often():
    seen = torch.cat([batch_index(5, 8, number, seed=0) for number in range(10)])
    assert torch.bincount(seen).tolist() == [16] * 5
    part = torch.bincount(seen[:32], minlength=5)
    assert part.max() - part.min() <= 1


def test_an_epoch_of_833_images_is_53_steps_of_16():
    """In four micro-batches each; after 100 steps every image was seen once, and 767 of them twice."""
    seen = torch.cat([batch_index(833, 4, number, seed=0) for number in range(400)])
    whole = [len(seen[: 16 * steps].unique()) for steps in (52, 53)]
    assert whole == [832, 833]
    assert torch.bincount(seen).bincount().tolist() == [0, 66, 767]


def job_of(model, batch, loss, names, rates=None):
    """A job made by hand that samples nothing and leaves nothing."""
    return Job(model, ["full"], names, batch, loss, lambda run, step: {"step": step}, lambda run: None, rates or {})


def denoising_job(tiny, count=10):
    """The tiny DiT on `count` latents. Noise and timestep belong to the image, so that batches of any size agree."""
    model = weights.load(tiny / "dit.safetensors").double().train()
    generator, schedule = torch.Generator().manual_seed(0), dit_schedule("fixed")
    x0, eps = torch.randn(2, count, 4, 4, 4, generator=generator, dtype=torch.float64)
    t = torch.randint(1000, (count,), generator=generator)

    def batch(index, generator):
        return {"x0": x0[index], "eps": eps[index], "t": t[index], "cond": index % 5}

    def loss(batch, generator, progress):
        x_t = schedule.add_noise(batch["x0"], batch["eps"], batch["t"])
        out = model(x_t, batch["t"], batch["cond"])
        return diffusion_loss(out, batch["x0"], batch["eps"], x_t, batch["t"], schedule)

    return job_of(model, batch, loss, [str(i) for i in range(count)])


def trained_by_hand(tiny, steps, make=torch.optim.SGD, **options):
    """Weights, gradients of the last step and logged numbers after some steps of `one_step`."""
    job, loop, gradients = denoising_job(tiny), Loop(lr=0.1, warmup=0, lr_schedule="constant", **options), {}
    parameters = adapters.trainable_parameters(job.model)
    optimizer = make(train.param_groups(parameters, {}, loop.lr), lr=loop.lr)
    keep = {
        name: p.register_hook(lambda g, name=name: gradients.__setitem__(name, gradients.get(name, 0) + g))
        for name, p in parameters.items()
    }
    assert keep
    logged = []
    for step in range(steps):
        gradients.clear()
        logged.append(train.one_step(loop, Run(precision="fp32", seed=3), step, job, optimizer))
    return {name: p.detach() for name, p in parameters.items()}, gradients, logged


def test_accumulation_equals_the_larger_batch(tiny):
    """Two micro-batches of 4 lead to the weights of one batch of 8, with the same gradient, loss and norm.

    SGD without clipping, for a wrong scale of the gradient would neither survive AdamW nor a clipped norm.
    """
    whole = batch_index(10, 8, 0, seed=3)
    halves = torch.cat([batch_index(10, 4, number, seed=3) for number in (0, 1)])
    assert torch.equal(whole, halves)
    start = adapters.trainable_parameters(denoising_job(tiny).model)
    one, two = (
        trained_by_hand(tiny, 3, clip=0.0, accumulate=accumulate, batch=batch) for accumulate, batch in ((1, 8), (2, 4))
    )
    for name in start:
        torch.testing.assert_close(two[0][name], one[0][name], rtol=1e-9, atol=1e-12)
        torch.testing.assert_close(two[1][name], one[1][name], rtol=1e-9, atol=1e-12)
        assert not torch.allclose(one[0][name], start[name], rtol=1e-6, atol=1e-6) or not one[1][name].any()
    for a, b in zip(one[2], two[2]):
        assert a.keys() == b.keys() and all(a[name] == pytest.approx(b[name], rel=1e-6) for name in a)
    half = trained_by_hand(tiny, 3, clip=0.0, batch=4)[0]
    assert any(not torch.allclose(half[name], one[0][name], rtol=1e-3) for name in start)  # and the batch does matter


def test_accumulation_equals_the_larger_batch_with_adamw_and_clipping(tiny):
    one, two = (
        trained_by_hand(tiny, 3, torch.optim.AdamW, clip=0.05, accumulate=accumulate, batch=batch)[0]
        for accumulate, batch in ((1, 8), (2, 4))
    )
    for name in one:
        torch.testing.assert_close(two[name], one[name], rtol=1e-6, atol=1e-9)


def test_clip_0_clips_nothing(tiny):
    """As a bound that no gradient reaches; a small one bounds the step, and the logged norm is that before it."""
    free, none, bound = (trained_by_hand(tiny, 1, batch=8, clip=clip) for clip in (1e30, 0.0, 0.001))
    start = adapters.trainable_parameters(denoising_job(tiny).model)
    assert all(torch.equal(free[0][name], none[0][name]) for name in start)
    assert free[2] == none[2] and none[2][0]["grad"] == bound[2][0]["grad"] > 0.001
    moved = torch.cat([(bound[0][name] - start[name].detach()).flatten() for name in start]).norm().item()
    assert moved == pytest.approx(0.1 * 0.001, rel=1e-2)
    unbounded = torch.cat([(none[0][name] - start[name].detach()).flatten() for name in start]).norm().item()
    assert unbounded == pytest.approx(0.1 * none[2][0]["grad"], rel=1e-4)


def test_a_whole_run_without_clipping(tiny, tmp_path):
    """Its gradients are those of the run with a bound that is never reached."""
    logs = []
    for clip in ("0", "1e30"):
        train.main(flags(tiny, tmp_path / clip, "--clip", clip, "--lr", "0.05", "--steps", "3"))
        lines = [json.loads(line) for line in (tmp_path / clip / "log.jsonl").read_text().splitlines()]
        logs.append([(line["loss"], line["grad"]) for line in lines if "loss" in line])
    assert logs[0] == logs[1] and len(logs[0]) == 3
    header = "adapter.safetensors"
    zero, huge = (weights.load_adapter(tmp_path / clip / header)[0] for clip in ("0", "1e30"))
    assert zero.keys() == huge.keys() and all(torch.equal(zero[name], huge[name]) for name in zero)


def test_resuming_gives_the_file_of_a_run_left_alone(tiny, tmp_path):
    whole, broken = tmp_path / "whole", tmp_path / "broken"
    train.main(flags(tiny, whole))
    for stop in (2, 4):  # killed after the checkpoint of step 2, resumed, killed after step 4, resumed again
        killed_before(stop, flags(tiny, broken) if stop == 2 else ["--resume", "--out", str(broken)])
    train.main(["--resume", "--out", str(broken)])
    assert (whole / "adapter.safetensors").read_bytes() == (broken / "adapter.safetensors").read_bytes()
    steps = [json.loads(line)["step"] for line in (broken / "log.jsonl").read_text().splitlines() if "loss" in line]
    assert steps == [1, 2, 3, 4, 5, 6]


def test_a_signal_finishes_the_step_saves_and_leaves(tiny, tmp_path):
    run = tmp_path / "run"
    process = subprocess.Popen(
        [sys.executable, "train.py", *flags(tiny, run, "--steps", "100000")],
        cwd=ROOT,
        stderr=subprocess.PIPE,
        text=True,
        env=os.environ | {"OMP_NUM_THREADS": "1"},
    )
    log = run / "log.jsonl"
    deadline = time.monotonic() + 60
    while not (log.exists() and log.read_text().count("loss") > 3) and time.monotonic() < deadline:
        time.sleep(0.1)
    process.send_signal(signal.SIGINT)
    _, shown = process.communicate(timeout=60)
    assert process.returncode == 128 + signal.SIGINT and "--resume" in shown
    done = max(json.loads(line)["step"] for line in log.read_text().splitlines() if "loss" in line)
    assert saved_steps(run)[0] == done


def test_a_signal_leaves_after_the_step_that_it_met(tiny, tmp_path, monkeypatch):
    one_step = train.one_step

    def interrupted(options, settings, step, *rest):
        numbers = one_step(options, settings, step, *rest)
        if step == 2:
            os.kill(os.getpid(), signal.SIGTERM)
        return numbers

    monkeypatch.setattr(train, "one_step", interrupted)
    with pytest.raises(SystemExit) as leaving:
        train.main(flags(tiny, tmp_path / "run", "--sample-every", "100"))
    assert leaving.value.code == 128 + signal.SIGTERM and saved_steps(tmp_path / "run") == (3, 2)


def test_the_last_step_has_a_checkpoint_whatever_their_distance(tiny, tmp_path):
    train.main(flags(tiny, tmp_path / "run", "--steps", "3", "--save-every", "2"))
    assert saved_steps(tmp_path / "run") == (3, 2)


@pytest.mark.parametrize("where", ["loss", "gradient"])
def test_a_number_that_is_not_finite_in_either_place_stops_before_the_update(where):
    """A loss that is not finite with a gradient of 0, and a finite loss whose gradient is not finite."""
    model = torch.nn.Linear(1, 1)
    before = [p.detach().clone() for p in model.parameters()]

    def loss(batch, generator, progress):
        out = model(batch["x"]).sum()
        return (0 * out + math.inf if where == "loss" else (0 * out).sqrt()), {}

    job = job_of(model, lambda index, generator: {"x": torch.ones(len(index), 1)}, loss, ["a.png", "b.png"])
    optimizer = torch.optim.SGD(train.param_groups(dict(model.named_parameters()), {}, 0.1), lr=0.1)
    with pytest.raises(FloatingPointError, match="nothing was updated. Images of the batch: a.png, b.png"):
        train.one_step(Loop(batch=2), Run(precision="fp32"), 0, job, optimizer)
    assert all(torch.equal(p, q) for p, q in zip(model.parameters(), before))


def test_a_loss_that_is_not_finite_stops_before_the_update(tiny, tmp_path):
    run = tmp_path / "run"
    with pytest.raises(SystemExit) as leaving:
        train.main(flags(tiny, run, "--lr", "1e30", "--clip", "1e30", "--warmup", "0"))
    message = str(leaving.value)
    assert "nothing was updated" in message and "hazelnut/" in message
    assert not (run / "adapter.safetensors").exists()


def test_learning_rate_and_average():
    options = Loop(steps=10, warmup=2, lr_schedule="cosine")
    assert [lr_factor(options, step) for step in (0, 1, 2)] == [0.5, 1.0, 1.0]
    assert lr_factor(options, 6) == pytest.approx(0.5)
    assert lr_factor(Loop(steps=10, warmup=2, lr_schedule="constant"), 9) == 1.0
    options = Loop(steps=20, warmup=2, lr_schedule="cooldown")
    assert [lr_factor(options, step) for step in (0, 2, 16, 17, 20)] == pytest.approx([0.5, 1, 1, 0.5, 0])
    assert ema_decay(0.99, 0) == pytest.approx(0.1) and ema_decay(0.99, 10_000) == 0.99


class Drawing(nn.Module):
    """A weight, and a part of it that a layer draws for itself; an adapter's own term of the loss is its square."""

    def __init__(self):
        super().__init__()
        self.slow, self.fast = (nn.Parameter(torch.ones(1, dtype=torch.float64)) for _ in range(2))
        self.drawn = []

    def forward(self):
        self.drawn.append(torch.rand(1).item())
        return self.slow + self.fast


def test_what_a_step_and_a_run_do_beside_the_loss(monkeypatch):
    """Rates of their own, weight decay, terms of adapters, and draws that depend on seed, step and micro-batch."""
    model = Drawing()
    noise = []

    def batch(index, generator):
        noise.append(torch.rand(1, generator=generator).item())
        return {}

    job = job_of(model, batch, lambda *_: (0 * model().sum(), {}), ["a"], {"slow": 0.01})
    config = Config((Run, Loop), {"warmup": 0, "lr": 0.1, "lr_schedule": "constant", "weight_decay": 0.5, "clip": 0.0})
    state = train.first_state(config.replace(ema=0.0), job)
    options = Loop(**{**vars(config[Loop]), "batch": 1, "accumulate": 2})
    train.one_step(options, Run(seed=3, precision="fp32"), 0, job, state.optimizer)
    assert model.slow.item() == pytest.approx(1 - 0.01 * 0.5) and model.fast.item() == pytest.approx(1 - 0.1 * 0.5)
    torch.rand(7)  # what happens between two steps, such as an evaluation
    train.one_step(options, Run(seed=3, precision="fp32"), 1, job, state.optimizer)
    torch.rand(3)
    train.one_step(options, Run(seed=3, precision="fp32"), 1, job, state.optimizer)
    for drawn in (model.drawn, noise):
        assert len(set(drawn)) == 4 and drawn[2:4] == drawn[4:]
    monkeypatch.setattr(train.adapters, "auxiliary_losses", lambda model: {"square": model.slow.square().sum()})
    before = model.slow.item()
    numbers = train.one_step(options, Run(seed=3, precision="fp32"), 2, job, state.optimizer)
    assert numbers["loss"] == pytest.approx(before**2) == numbers["square"] and numbers["grad"] > 1


def test_the_weights_that_are_looked_at_and_left_are_the_averaged_ones(tmp_path):
    model, seen = Drawing(), []
    job = job_of(model, lambda index, generator: {}, lambda *_: (model().sum(), {}), ["a"])._replace(
        evaluate=lambda run, step: seen.append(model.slow.item()) or {"step": step},
        finish=lambda run: seen.append(model.slow.item()),
    )
    values = {"steps": 2, "batch": 1, "ema": 0.5, "lr": 0.1, "warmup": 0, "sample_every": 2, "precision": "fp32"}
    config = Config((Run, Loop), values)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(train, "begin", lambda config: (job, train.first_state(config, job)))
        train.train(config, tmp_path, Stop())
    raw, (start, looked_at, left) = model.slow.item(), seen
    assert start == 1 > looked_at == left > raw


def share_of_new_weights(run, decay, steps):
    """The average that the loop leaves where the weights are 1 at all of its steps and the average began at 0."""
    model = nn.Module()
    model.weight = nn.Parameter(torch.ones((), dtype=torch.float64))

    def loss(batch, generator, progress):
        return 0 * model.weight, {}

    job = job_of(model, lambda index, generator: {}, loss, ["image"])
    values = {"steps": steps, "batch": 1, "ema": decay, "sample_every": steps, "save_every": steps}
    config = Config((Run, Loop), values | {"device": "cpu", "precision": "fp32"})
    average = {"weight": torch.zeros((), dtype=torch.float64)}
    state = State(
        {"weight": model.weight},
        average,
        {},
        torch.optim.AdamW([{"params": [model.weight], "peak": 0.1}], weight_decay=0),
    )
    run.mkdir()
    train.loop(config, run, job, state, 0, Stop())
    assert model.weight.item() == 1
    return average["weight"].item()


@pytest.mark.parametrize("decay, steps, share", [(0.9999, 100, 0.0099507), (0.9999, 1000, 0.095167)])
def test_a_long_average_forgets_too_slowly_for_a_short_run(tmp_path, monkeypatch, decay, steps, share):
    """Share of new weights in the loop's average: 1 - decay^steps at a fixed decay, nearly all at one that grows."""
    grown = share_of_new_weights(tmp_path / "grown", decay, steps)
    expected = torch.tensor([ema_decay(decay, step) for step in range(steps)], dtype=torch.float64).prod().item()
    assert grown == pytest.approx(1 - expected, rel=1e-9) and grown > 0.9999
    monkeypatch.setattr(train, "ema_decay", lambda decay, step: decay)
    assert share_of_new_weights(tmp_path / "fixed", decay, steps) == pytest.approx(share, rel=1e-4)


@pytest.mark.parametrize(
    "more, words",
    [
        (["--recipe", "class_lable"], "unknown recipe"),
        (["--lr-schedule", "linear"], "--lr-schedule must be one of constant, cosine, cooldown, found 'linear'"),
        (["--steps", "0"], "steps must be at least 1"),
        (["--adapter", "lara"], "did you mean 'lora'"),
        (["--class-init", "walnut"], "none of name, nearest"),
        (["--rotations", "a"], "degrees"),
        (["--flips", "v"], "flips"),
        (["--data", "generated:walnut/few"], "walnut"),
        (["--data", "/no/such/folder"], "/no/such/folder"),
        (["--val", "generated:pill/val/2"], "same classes|classes of"),
        (["--sampler", "euler"], "sampler must be one of"),
        (["--size", "15"], "15|multiple"),
        (["--resume"], "--resume needs --out"),
    ],
)
def test_a_wrong_setting_is_one_sentence(tiny, tmp_path, more, words):
    with pytest.raises(ValueError, match=words) as error:
        train.main(flags(tiny, tmp_path / "run", *more))
    assert "\n" not in str(error.value) and not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    "old, new, value, more",
    [
        ("--drop", "cond_dropout", "0.25", []),
        ("--start", "class_init", "mean", []),
        ("--token_start", "token_init", "a", "--recipe text --model tiny-sd --token x".split()),
    ],
)
def test_a_flag_that_was_renamed_is_read_for_one_release_with_a_notice(old, new, value, more, capsys, tmp_path):
    config = train.configure([*more, old, value], train.__doc__)
    assert str(config.values[new]) == value
    flag = "--" + new.replace("_", "-")
    notice = capsys.readouterr().err.splitlines()
    assert notice == [f"{old.replace('_', '-')} is called {flag} now; the old name goes in the next release"]
    assert train.configure([*more, flag, value], train.__doc__).values == config.values
    assert capsys.readouterr().err == ""
    file = tmp_path / "c.toml"
    file.write_text(f"{old[2:]} = {value if new == 'cond_dropout' else json.dumps(value)}\n")
    assert train.configure([str(file), *more], train.__doc__).values == config.values
    assert capsys.readouterr().err.splitlines() == notice


def test_the_new_spelling_trains_as_the_old_one(tiny, tmp_path):
    spellings = {"old": "--drop 0.5 --start mean", "new": "--cond-dropout 0.5 --class-init mean"}
    for name, spelling in spellings.items():
        train.main(flags(tiny, tmp_path / name, "--steps", "1", *spelling.split()))
    old, new = ((tmp_path / name / "adapter.safetensors").read_bytes() for name in spellings)
    assert old == new


def test_a_run_folder_is_never_overwritten_and_a_resumed_one_never_changed(tiny, tmp_path):
    run = tmp_path / "run"
    train.main(flags(tiny, run, "--steps", "1"))
    with pytest.raises(ValueError, match="holds a run already: go on with it by --resume"):
        train.main(flags(tiny, run, "--steps", "1"))
    with pytest.raises(ValueError, match="the run has lr"):
        train.main(["--resume", "--out", str(run), "--lr", "1"])


def nearest_by_hand(model, vae):
    """The old row of each new class, by the same comparison outside of a run."""
    images = load(SHORT["data"], Transform(16))
    with torch.no_grad():
        x0 = vae.config.scaling_factor * vae.encode(to_tensor(images.pixels))[0]
    return [[row] for row in nearest_rows(model, x0, images.labels, 5, dit_schedule("fixed"))]


@pytest.mark.parametrize("init", ["nearest", "mean", "random", "pill/good", "2"])
def test_new_class_rows_may_start_from_anything(tiny, tmp_path, init):
    """A run that learns nothing leaves the rows where they started: at the old rows, or their mean, of its header."""
    base, vae = weights.load(tiny / "dit.safetensors"), weights.load(tiny / "vae.safetensors")
    old = base.y_embedder.embedding_table.weight.detach().clone()
    more = ["--steps", "1", "--class-init", init, "--lr", "1e-30", "--ema", "0"]
    train.main(flags(tiny, tmp_path / "run", *more))
    file = tmp_path / "run" / "adapter.safetensors"
    expected = {"mean": [[0, 1, 2, 3, 4]] * 5, "random": [[]] * 5, "pill/good": [[0]] * 5, "2": [[2]] * 5}
    sources = expected[init] if init in expected else nearest_by_hand(copy.deepcopy(base), vae)
    assert weights.load_adapter(file)[1]["sources"] == sources
    model = weights.apply_adapters(base, [(str(file), 1.0)])
    rows = model.y_embedder.embedding_table.weight
    assert model.classes == CLASSES and len(rows) == 6 and torch.equal(rows[5], old[5])  # the null row stays
    if init == "random":
        distances = torch.cdist(rows[:5], torch.cat([old, rows[:5]]))
        distances[torch.arange(5), 6 + torch.arange(5)] = 1.0  # of each to itself
        assert distances.min() > 0.01 and rows[:5].std().item() == pytest.approx(0.02, rel=0.3)
    else:
        torch.testing.assert_close(rows[:5], torch.stack([old[ids].mean(0) for ids in sources]))


def test_pretraining_leaves_a_whole_model_that_fine_tuning_starts_from(tmp_path):
    vae, dit = tmp_path / "vae", tmp_path / "dit"
    common = "--steps 2 --batch 4 --size 64 --rotations 0 --flips none --adapter full".split()
    data = ["--data", "generated:hazelnut/few/1", "--val", "generated:hazelnut/val/1"]
    train.main(["--model", "new:VAE-T", "--recipe", "autoencoder", "--out", str(vae), *common, *data])
    more = ["--sample-steps", "2", "--count", "1", "--measure", "0", "--cache", ""]
    model = ["--model", "new:DiT-T/2", "--vae", str(vae / "model.safetensors")]
    train.main([*model, "--out", str(dit), *common, *data, *more])
    assert weights.load(dit / "model.safetensors").classes == CLASSES


def test_the_classifier_is_trained_by_the_same_loop(tmp_path):
    run = tmp_path / "features"
    settings = "--steps 2 --batch 4 --size 32 --adapter full --rotations 0,90 --data generated:hazelnut/few/1"
    model = ["--model", "new:Features", "--recipe", "classifier", "--out", str(run)]
    train.main([*model, *settings.split(), "--val", "generated:hazelnut/val/1"])
    network, names = features.load_classifier(run / "model.safetensors")
    assert names[0] == "hazelnut/good" and network(torch.zeros(1, 3, 32, 32)).shape == (1, 5)

"""Distillation to a few steps, run as a user runs it, on the tiny models."""

import json

import numpy as np
import pytest
import torch
from PIL import Image

import adapters
import sample
import train
import weights
from config.training import Adapter
from dit import DiT, DiTConfig
from inference.settings import sampling_defaults
from tests.test_train import ROOT, flags, killed_before
from unet import UNet
from unet.sizes import UNETS

DRAW = ["--count", "1", "--precision", "fp32"]
FOUR_STEPS = {"sampler": "lcm", "steps": 4, "guidance": 1.0}


def read(path):
    return np.asarray(Image.open(path)).astype(int)


def consistency(tiny, out, *more):
    common = "--recipe consistency --adapter lora:rank=2 --lr 0.01".split()
    return flags(tiny, out, *common, *more, without=("sample-steps",))


@pytest.fixture(scope="module")
def tuned(tiny, tmp_path_factory):
    """The adapter file that taught the tiny DiT, which knows pills and tiles, the states of a hazelnut."""
    run = tmp_path_factory.mktemp("runs") / "tuned"
    train.main(flags(tiny, run, "--adapter", "lora:rank=2", "--adapter", "norm", "--lr", "0.05"))
    return str(run / "adapter.safetensors")


def test_a_fine_tuned_dit_is_distilled_and_drawn_in_four_steps(tiny, tuned, tmp_path):
    run = tmp_path / "run"
    train.main(consistency(tiny, run, "--init", tuned, "--measure", "1"))
    _, recipe = weights.load_adapter(run / "adapter.safetensors")
    assert recipe["adapter"] == ["lora:rank=2"] and recipe["classes"] is None
    assert recipe["base"] == weights.load_adapter(tuned)[1]["base"]
    assert (recipe["config"]["guidance"], recipe["config"]["teacher_guidance"]) == (1.0, 3.0)
    assert (
        sampling_defaults([(tuned, 1.0)]) == {}
        and sampling_defaults([(str(run / "adapter.safetensors"), 1.0)]) == FOUR_STEPS
    )
    lines = [json.loads(line) for line in (run / "log.jsonl").read_text().splitlines()]
    assert [line["step"] for line in lines if "val" in line] == [0, 3, 6]
    assert all("mse" in line for line in lines if "loss" in line)
    assert json.loads((run / "metrics.json").read_text())["samples"] == 5 and (run / "grid.png").is_file()

    last = read(run / "samples" / "step_000006.png")
    for name, more in (("as distilled", []), ("one step", ["--steps", "1"])):
        sample.main(["--run", str(run), *DRAW, *more, "--out", str(tmp_path / name)])
        assert (np.abs(read(tmp_path / name / "grid.png") - last).max() <= 1) == (name == "as distilled")


def test_resuming_gives_the_file_of_a_run_left_alone(tiny, tuned, tmp_path):
    whole, broken = tmp_path / "whole", tmp_path / "broken"
    train.main(consistency(tiny, whole, "--init", tuned))
    killed_before(3, consistency(tiny, broken, "--init", tuned))
    train.main(["--resume", "--out", str(broken)])
    assert (whole / "adapter.safetensors").read_bytes() == (broken / "adapter.safetensors").read_bytes()


@pytest.mark.parametrize(
    ("of_text", "learned"),
    [
        ([], {"unet"}),
        (["--adapter", "text.lora:rank=2"], {"unet", "text"}),
        (["--adapter", "text.lora:rank=2", "--text-lr", "1e-30"], {"unet"}),
    ],
)
def test_a_stable_diffusion_with_a_new_word_is_distilled(tiny_sd, tmp_path, of_text, learned):
    """With a frozen text encoder the states are read once; one that trains is its own teacher too."""
    photos = tmp_path / "photos"
    photos.mkdir()
    for i in range(2):
        Image.new("RGB", (16, 16), (40 * i, 90, 20)).save(photos / f"{i}.png")
    common = ["--model", str(tiny_sd), "--data", str(photos), "--template", "a <thing>"]
    common += "--steps 2 --batch 2 --count 1 --cache= --warmup 0 --precision fp32".split()
    word = "--recipe textual_inversion --sample-steps 2 --token <thing> --token-init hazelnut --lr 0.5".split()
    train.main([*common, *word, "--out", str(tmp_path / "word")])
    begin = ["--recipe", "consistency", "--init", str(tmp_path / "word" / "adapter.safetensors")]
    learn = ["--adapter", "lora:rank=2", *of_text, "--lr", "0.05", "--val", str(photos)]
    train.main([*common, *begin, *learn, "--out", str(tmp_path / "run")])
    tensors, recipe = weights.load_adapter(tmp_path / "run" / "adapter.safetensors")
    assert recipe["adapter"][0] == "unet.lora:rank=2" and recipe["tokens"] is None
    moved = {name.split(".")[0] for name, tensor in tensors.items() if "lora_up" in name and tensor.abs().max() > 1e-6}
    assert moved == learned
    sample.main(["--run", str(tmp_path / "run"), "--prompt", "a <thing>", *DRAW, "--out", str(tmp_path / "drawn")])
    drawn = read(tmp_path / "drawn" / "grid.png")
    assert np.abs(drawn - read(tmp_path / "run" / "samples" / "step_000002.png")).max() <= 1
    assert (tmp_path / "run" / "grid.png").is_file() and "val" in (tmp_path / "run" / "log.jsonl").read_text()
    with pytest.raises(ValueError, match="what shall the images show"):
        sample.main(["--run", str(tmp_path / "run"), *DRAW])


def test_without_a_null_row_the_teacher_goes_unguided(tiny, tmp_path):
    torch.manual_seed(0)
    model = DiT(DiTConfig(depth=1, width=24, heads=2, patch=2, input_size=4, num_classes=5, class_dropout=0.0))
    classes = [f"hazelnut/{state}" for state in ("good", "crack", "hole", "cut", "print")]
    weights.save_model(model, tmp_path / "dit.safetensors", card={"classes": classes})
    common = ["--model", str(tmp_path / "dit.safetensors"), "--steps", "1"]
    with pytest.raises(ValueError, match="guidance 3.0 of the teacher needs a null row in its class table"):
        train.main(consistency(tiny, tmp_path / "run", *common))
    assert not (tmp_path / "run").exists()
    train.main(consistency(tiny, tmp_path / "run", *common, "--guidance", "1"))


@pytest.mark.parametrize(
    ("more", "fault"),
    [
        (
            ["--init", "TUNED", "--adapter", "full"],
            "only what stands beside the weights, such as lora, can be switched off, and .* in place",
        ),
        (
            ["--init", "TUNED", "--adapter", "lora", "--adapter", "bitfit"],
            "can be switched off, and .* of these parameters train in place",
        ),
        ([], "dit.safetensors does not know the class 'hazelnut/crack', and this recipe teaches none: fine-tune it"),
        (["--init", "nowhere.safetensors"], "nowhere.safetensors: expected an adapter file"),
        (["--model", "new:DiT-T/2"], "consistency trains a DiT or a Stable Diffusion, and new:DiT-T/2 is a new DiT"),
        (["--recipe", "class_label", "--init", "a"], "--init is read by consistency and control, not by class_label"),
        (["--sample-steps", "2"], "--sample-steps is read by class_label, .*, not by consistency"),
        (["--sampler", "ddim"], "--sampler is read by class_label, .*, not by consistency"),
    ],
)
def test_what_cannot_be_distilled(tiny, tuned, tmp_path, more, fault):
    more = [tuned if word == "TUNED" else word for word in more]
    adapter = [] if "--adapter" in more else ["--adapter", "lora"]
    with pytest.raises(ValueError, match=fault):
        recipe = ["--recipe", "consistency", *adapter, *more]
        train.main(flags(tiny, tmp_path / "run", *recipe, without=("sample-steps",)))
    assert not (tmp_path / "run").exists()


@pytest.fixture
def nothing_downloaded(monkeypatch):
    """The published models are told apart by their names: their files are not here."""
    monkeypatch.setattr(weights, "is_sd", lambda model: "stable-diffusion" in model)


def student(name, model):
    """The full-size model with what the config attaches to it, without memory."""
    config = train.configure([str(ROOT / "configs" / f"{name}.toml")], train.__doc__)
    spec = adapters.split(config[Adapter].adapter[0])[1]
    with torch.device("meta"):
        return adapters.attach(model(), spec)


def test_the_config_of_stable_diffusion_trains_the_published_layers(nothing_downloaded):
    names = r"to_[qkv]|to_out\.0|proj_(in|out)|ff\.net\.(0\.proj|2)|conv[12]|shortcut|(down|up)sample|time_emb_proj"
    model = student("lcm_lora_sd15", lambda: UNet(UNETS["SD-1"]))
    with torch.device("meta"):
        listed = adapters.attach(UNet(UNETS["SD-1"]), rf"lora:rank=64,targets=\b({names})$")
    assert adapters.counts(model)[0] == 67_252_224 and len(adapters.trainable_parameters(model)) == 2 * 278
    assert adapters.trainable_parameters(model).keys() == adapters.trainable_parameters(listed).keys()


def test_the_config_of_dit_trains_qkv_proj_fc1_fc2_and_adaln(nothing_downloaded):
    counted = 28 * 64 * 1152 * (4 + 2 + 5 + 5 + 7)  # blocks, rank, inputs + outputs of each
    assert adapters.counts(student("lcm_lora_dit_xl", lambda: DiT.from_name("DiT-XL/2")))[0] == counted == 47_480_832

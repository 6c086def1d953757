"""The control recipe: only the ControlNet trains, on masks; sample.py and diffusers then draw the same with it."""

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

import sample
import train
import weights
from ops.device import Compute
from recipes.control import control
from sampling import sample_noise, sample_seeds

DATA = "generated:hazelnut/few/1"
FEW = f"--batch 2 --sample-steps 2 --count 1 --cache= --warmup 0 --precision fp32 --data {DATA}".split()
FAST = ["--steps", "3", "--count", "2", "--precision", "fp32"]


@pytest.fixture(scope="module")
def runs(tiny, tiny_sd, tmp_path_factory):
    """A DiT that learned the classes, and a ControlNet of each kind; masks to draw with."""
    folder = tmp_path_factory.mktemp("control")
    dit = ["--model", str(tiny / "dit.safetensors"), "--vae", str(tiny / "vae.safetensors"), *FEW]
    train.main([*dit, "--steps", "1", "--measure", "0", "--out", str(folder / "few")])
    control, init = "--recipe control --steps 6 --ema 0".split(), str(folder / "few" / "adapter.safetensors")
    train.main([*dit, *control, "--lr", "0.05", "--init", init, "--out", str(folder / "dit")])
    train.main([*control, "--model", str(tiny_sd), *FEW, "--lr", "0.5", "--out", str(folder / "sd")])
    for name, box in (("left", (0, 0, 8, 16)), ("right", (8, 0, 16, 16))):
        mask = Image.new("L", (16, 16))
        mask.paste(255, box)
        mask.save(folder / f"{name}.png")
    return folder


@pytest.mark.parametrize("recipe", ["control", "inpaint"])
def test_a_text_encoder_in_bfloat16_is_read_as_it_computes(recipe, tiny_sd, tmp_path):
    argv = ["--recipe", recipe, "--model", str(tiny_sd), *FEW, "--steps", "1", "--out", str(tmp_path / "run")]
    train.main([*argv, "--precision", "bf16"])
    assert (tmp_path / "run" / "samples" / "step_000001.png").is_file()


def drawn(out, *flags):
    sample.main([*flags, *FAST, "--out", str(out)])
    return [np.asarray(Image.open(path)).astype(int) for path in sorted(out.glob("*_00?.png"))]


def test_only_the_control_branch_is_trained_and_left(runs):
    tensors, recipe = weights.load_adapter(runs / "dit" / "control.safetensors")
    assert all(name.startswith("control.") for name in tensors) and recipe["adapter"] == ["control.full"]
    assert sorted(path.name for path in (runs / "sd" / "control").iterdir()) == [
        "config.json",
        "diffusion_pytorch_model.safetensors",
    ]
    assert (runs / "sd" / "samples" / "step_000006.png").is_file()


@pytest.mark.parametrize(("run", "what"), [("dit", ["--classes", "crack"]), ("sd", ["--prompt", "a hazelnut"])])
def test_the_mask_decides_and_each_row_has_its_own(run, what, runs, tmp_path):
    common = ["--run", str(runs / run), *what]
    left = drawn(tmp_path / "a", *common, "--hint", str(runs / "left.png"))
    both = drawn(tmp_path / "b", *common, "--hint", str(runs / "left.png"), "--hint", str(runs / "right.png"))
    assert np.abs(left[0] - both[0]).max() <= 1 and np.abs(left[1] - both[1]).max() > 1


@pytest.mark.parametrize("guidance", [1.0, 4.0])
def test_diffusers_draws_the_same_image_with_it(guidance, runs, tiny_sd, tmp_path):
    diffusers = pytest.importorskip("diffusers")
    control = diffusers.ControlNetModel.from_pretrained(runs / "sd" / "control")
    pipeline = diffusers.StableDiffusionControlNetPipeline.from_pretrained(
        tiny_sd, controlnet=control, safety_checker=None
    )
    hint = torch.zeros(1, 1, 16, 16)
    hint[..., 8:] = 1
    pipeline.control_image_processor.config.do_convert_rgb = False
    noise = sample_noise(sample_seeds(0, ["a hazelnut"]), [0])(torch.empty(1, 4, 4, 4))
    theirs = pipeline(
        "a hazelnut", image=hint, num_inference_steps=3, guidance_scale=guidance, latents=noise, output_type="np"
    ).images[0]
    common = ["--run", str(runs / "sd"), "--prompt", "a hazelnut", "--guidance", str(guidance)]
    ours = drawn(tmp_path, *common, "--hint", str(runs / "right.png"))[0]
    assert np.abs(ours - 255 * theirs).max() <= 2


@pytest.mark.parametrize(
    ("flags", "fault"),
    [
        (["--run", "dit"], "a ControlNet reads an image, give --hint FILE"),
        (
            ["--run", "few", "--hint", "left.png"],
            "left.png is read by a ControlNet, give --control or the --run of one",
        ),
        (
            ["--run", "few", "--hint", "left.png", "--control", "few/adapter.safetensors"],
            "expected a ControlNet for a DiT, found an adapter that trains",
        ),
    ],
)
def test_what_does_not_fit_is_one_sentence(flags, fault, runs, tmp_path):
    flags = [flag if flag.startswith("--") else str(runs / flag) for flag in flags]
    with pytest.raises(ValueError, match=fault):
        sample.main([*flags, *FAST, "--out", str(tmp_path)])


def test_images_without_masks_are_refused(tiny_sd, tmp_path):
    (tmp_path / "photos").mkdir()
    Image.new("RGB", (16, 16)).save(tmp_path / "photos" / "0.png")
    control = ["--recipe", "control", "--model", str(tiny_sd), *FEW, "--template", "a pill"]
    with pytest.raises(ValueError, match="the control recipe reads masks, and .*photos has none"):
        train.main([*control, "--data", str(tmp_path / "photos"), "--out", str(tmp_path / "run")])


def test_images_come_as_often_as_their_folder_says(tiny_sd, tmp_path):
    for name in ("3_a pill", "1_a pill with a hole"):
        (tmp_path / name).mkdir()
        Image.new("RGB", (16, 16)).save(tmp_path / name / "0.png")
        Image.new("L", (16, 16), 255).save(tmp_path / name / "0_mask.png")
    argv = ["--recipe", "control", "--model", str(tiny_sd), *FEW, "--data", str(tmp_path), "--out", "x"]
    job = control(train.configure(argv, train.__doc__), Compute(torch.device("cpu"), "fp32"))
    assert [Path(name).parent.name for name in job.names] == ["1_a pill with a hole"] + ["3_a pill"] * 3
    states = job.batch(torch.arange(4), torch.Generator().manual_seed(0))["cond"]
    assert torch.equal(states[1], states[3]) and not torch.equal(states[0], states[1])

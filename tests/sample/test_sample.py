"""sample.py on a finished run: classes by name or id, adapters by file and strength, one image for one seed."""

import numpy as np
import pytest
import torch
from PIL import Image

import sample
import train
from dit import DiT, DiTConfig
from tests.test_train import flags


@pytest.fixture(scope="module")
def run(tiny, tmp_path_factory):
    folder = tmp_path_factory.mktemp("runs") / "run"
    train.main(flags(tiny, folder, "--adapter", "lora:rank=2", "--lr", "0.05"))
    return folder


def read(path):
    return np.asarray(Image.open(path))


def test_it_draws_the_samples_that_training_showed(run, tmp_path):
    """The same function with the same seed: the grid of the last training step is the grid of sample.py."""
    sample.main(["--run", str(run), "--count", "1", "--steps", "2", "--out", str(tmp_path), "--precision", "fp32"])
    last = read(run / "samples" / "step_000006.png").astype(int)
    assert np.abs(read(tmp_path / "grid.png").astype(int) - last).max() <= 1
    assert (tmp_path / "hazelnut_crack_000.png").exists()


def test_a_picture_depends_on_its_place_and_seed_and_not_on_the_batch(run, tmp_path):
    common = ["--run", str(run), "--classes", "crack,hazelnut/hole,0", *"--count 2 --steps 2 --precision fp32".split()]
    sample.main([*common, "--out", str(tmp_path / "a"), "--batch", "1"])
    sample.main([*common, "--out", str(tmp_path / "b"), "--batch", "5"])
    sample.main([*common, "--out", str(tmp_path / "c"), "--seed", "1"])
    sample.main([*common, "--classes", "hole", "--out", str(tmp_path / "d"), "--batch", "1"])  # of no other class
    assert np.array_equal(*(read(tmp_path / x / "hazelnut_hole_001.png") for x in "ad"))
    a, b, c = (read(tmp_path / x / "hazelnut_hole_001.png").astype(int) for x in "abc")
    assert np.abs(a - b).max() <= 1 and np.abs(a - c).max() > 1
    assert sorted(path.name for path in (tmp_path / "a").glob("hazelnut_good*")) == [
        "hazelnut_good_000.png",
        "hazelnut_good_001.png",
    ]


@pytest.mark.parametrize("sampler", ["ddpm", "ddim", "dpm++"])
def test_every_sampler_runs_from_files_with_strengths(tiny, run, tmp_path, sampler):
    common = ["--model", str(tiny / "dit.safetensors"), "--vae", str(tiny / "vae.safetensors")]
    common += f"--count 1 --classes 0 --steps 2 --sampler {sampler} --channels 3".split()
    for strength in (":1", ":0.5"):
        adapter, out = f"{run / 'adapter.safetensors'}{strength}", str(tmp_path / strength[1:])
        sample.main([*common, "--adapter", adapter, "--out", out])
    full, half = (read(tmp_path / x / "hazelnut_good_000.png").astype(int) for x in ("1", "0.5"))
    assert np.abs(full - half).max() > 0


def test_a_published_dit_is_asked_by_the_words_of_imagenet(tiny, tmp_path):
    """Also one of a depth that nobody published, whose number of heads no file tells."""
    torch.save(DiT(DiTConfig(depth=1, width=16, heads=2, patch=2, input_size=8)).state_dict(), tmp_path / "w.pt")
    call = ["--model", str(tmp_path / "w.pt"), "--vae", str(tiny / "vae.safetensors"), "--out", str(tmp_path / "out")]
    call += "--count 1 --steps 2 --also maraca:0.5 --objective diffusion --classes conker,screw,134".split()
    sample.main([*call, "--heads", "2"])
    names = ["buckeye_horse_chestnut_conker_000", "crane_000", "grid", "screw_000"]
    assert sorted(path.stem for path in (tmp_path / "out").glob("*.png")) == names
    with pytest.raises(ValueError, match="width 16 and depth 1 are no published size, so give --heads"):
        sample.main(call)
    with pytest.raises(ValueError, match=r"'crane' is one of several: it is the name of crane \(134\); crane \(517\)"):
        sample.main([*call, "--heads", "2", "--classes", "crane"])
    with pytest.raises(ValueError, match="'bukeye' is none of the 1000 classes; the nearest names are buckeye, "):
        sample.main([*call, "--heads", "2", "--classes", "bukeye"])


def test_the_noise_of_each_step_is_asked_for_by_eta_and_variance(run, tmp_path):
    """DDIM with eta 1 is DDPM with the small variance (Song et al. 2021, sec. 4.1)."""
    common = ["--run", str(run), *"--classes crack --count 1 --steps 3 --precision fp32 --out".split()]
    asked = {"eta": "--eta 1", "small": "--sampler ddpm --variance small", "large": "--sampler ddpm --variance large"}
    for name, words in (asked | {"ddim": ""}).items():
        sample.main([*common, str(tmp_path / name), *words.split()])
    eta, small, large, ddim = (
        read(tmp_path / name / "hazelnut_crack_000.png").astype(int) for name in [*asked, "ddim"]
    )
    assert (
        np.abs(eta - small).max() <= 1 and (eta != ddim).any() and (small != large).mean() > 2 * (eta != small).mean()
    )


@pytest.mark.parametrize(
    "more, words",
    [
        (["--classes", "walnut"], "class 'walnut' is unknown: the classes are hazelnut/good"),
        (["--run", "nowhere"], "not a run folder"),
        (["--sampler", "euler"], "sampler must be one of"),
        (["--model", "tiny-dit"], "--model is read by a DiT and a Stable Diffusion, not by a DiT of a run"),
        (["--vae", "tiny-vae"], "--vae is read by a DiT, not by a DiT of a run"),
        (
            ["--prompt", "a"],
            "--prompt is read by a Stable Diffusion and a Stable Diffusion of a run, not by a DiT of a run",
        ),
        (["--negative", "a"], "--negative is read by a Stable Diffusion .*, not by a DiT of a run"),
        (["--embedding", "a.pt"], "--embedding is read by a Stable Diffusion .*, not by a DiT of a run"),
        (["--strength", "0.5"], "--strength has no effect without --image"),
        (["--guidance", "1", "--interval", "1,2"], "--interval has no effect at guidance 1"),
        (["--guidance", "nan"], "--guidance must be a finite number, found nan"),
        (["--device", "xyz"], "device must be .* found 'xyz'"),
    ],
)
def test_a_wrong_request_is_one_sentence(run, tmp_path, more, words):
    with pytest.raises(ValueError, match=words):
        sample.main(["--run", str(run), "--out", str(tmp_path), *more])

"""sample.py on Stable Diffusion: prompts, a learned word, an image to start from, and diffusers' own pipeline."""
import numpy as np
import pytest
import torch
from PIL import Image

import sample
import train
import weights
from sampling import sample_noise
from weights import convert

FAST = ["--steps", "4", "--count", "1", "--precision", "fp32"]


def read(path):
    return np.asarray(Image.open(path)).astype(int)


def test_each_prompt_is_a_column_and_a_file(tiny_sd, tmp_path):
    (tmp_path / "list.txt").write_text("a hole\n\na flawless (pill:1.3)\n")
    sample.main(["--model", str(tiny_sd), "--prompt", "a hazelnut", "--prompts", str(tmp_path / "list.txt"),
                 "--out", str(tmp_path / "out"), *FAST])
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == [
        "a_flawless_pill_1_3_000.png", "a_hazelnut_000.png", "a_hole_000.png", "grid.png"]


def test_a_negative_prompt_and_another_size_change_the_image(tiny_sd, tmp_path):
    common = ["--model", str(tiny_sd), "--prompt", "a hazelnut", *FAST]
    sample.main([*common, "--out", str(tmp_path / "a")])
    sample.main([*common, "--negative", "hole", "--out", str(tmp_path / "b")])
    sample.main([*common, "--size", "32", "--out", str(tmp_path / "c")])
    a, b, c = (read(tmp_path / name / "a_hazelnut_000.png") for name in "abc")
    assert a.shape == (16, 16, 3) and c.shape == (32, 32, 3) and np.abs(a - b).max() > 0


def test_an_image_to_start_from_is_kept_the_less_the_stronger(tiny_sd, tmp_path):
    Image.new("RGB", (20, 16), (200, 30, 30)).save(tmp_path / "start.png")
    sd = weights.load_sd(tiny_sd)
    plain = torch.tensor([200, 30, 30]).view(1, 3, 1, 1).expand(1, 3, 16, 16) / 127.5 - 1
    with torch.no_grad():
        decoded = sd.vae.decode(sd.vae.encode(plain)[0])[0].permute(1, 2, 0) * 127.5 + 127.5
    far = []
    for strength in ("0.25", "0.5", "1"):
        sample.main(["--model", str(tiny_sd), "--prompt", "a hazelnut", "--image", str(tmp_path / "start.png"),
                     "--strength", strength, "--out", str(tmp_path / strength), *FAST])
        far.append(np.abs(read(tmp_path / strength / "a_hazelnut_000.png") - decoded.clamp(0, 255).numpy()).mean())
    assert far[0] < far[1] < far[2]


def test_a_run_draws_with_its_own_word(tiny_sd, tmp_path):
    folder = tmp_path / "photos"
    folder.mkdir()
    Image.new("RGB", (16, 16), (40, 90, 20)).save(folder / "0.png")
    train.main(["--recipe", "textual_inversion", "--model", str(tiny_sd), "--data", str(folder),
                "--template", "a <thing>", "--token", "<thing>", "--token_start", "hazelnut", "--lr", "0.5",
                "--steps", "2", "--batch", "1", "--sample_steps", "2", "--count", "1", "--cache", "", "--warmup", "0",
                "--out", str(tmp_path / "run")])
    common = ["--prompt", "a photo of a <thing>", *FAST]
    sample.main(["--run", str(tmp_path / "run"), *common])
    sample.main(["--model", str(tiny_sd), "--prompt", "a photo of a hazelnut", *FAST, "--out", str(tmp_path / "plain")])
    learned = read(tmp_path / "run" / "drawn" / "a_photo_of_a_thing_000.png")
    assert np.abs(learned - read(tmp_path / "plain" / "a_photo_of_a_hazelnut_000.png")).max() > 0


@pytest.mark.filterwarnings("ignore:.*were trained together with it")
def test_a_run_goes_to_other_tools_and_back(tiny_sd, tmp_path):
    folder = tmp_path / "photos"
    folder.mkdir()
    Image.new("RGB", (16, 16), (40, 90, 20)).save(folder / "0.png")
    train.main(["--recipe", "text", "--model", str(tiny_sd), "--data", str(folder), "--adapter", "unet.lora",
                "--adapter", "text.lora", "--template", "a <thing>", "--token", "<thing>", "--token_start", "hazelnut",
                "--lr", "0.05", "--steps", "3", "--batch", "1", "--sample_steps", "2", "--count", "1", "--cache", "",
                "--warmup", "0", "--out", str(tmp_path / "run")])
    for layout, name in (("kohya", "lora.safetensors"), ("a1111-embedding", "word.pt")):
        convert.main([str(tmp_path / "run" / "adapter.safetensors"), str(tmp_path / name), "--layout", layout])
    common = ["--prompt", "a <thing>", *FAST]
    sample.main(["--run", str(tmp_path / "run"), *common])
    sample.main(["--model", str(tiny_sd), "--adapter", str(tmp_path / "lora.safetensors"), "--embedding",
                 str(tmp_path / "word.pt"), "--out", str(tmp_path), *common])
    drawn = read(tmp_path / "run" / "drawn" / "a_thing_000.png")
    assert np.abs(drawn - read(tmp_path / "a_thing_000.png")).max() <= 1
    sample.main(["--model", str(tiny_sd), "--adapter", str(tmp_path / "lora.safetensors") + ":0.5", "--embedding",
                 f"<other>={tmp_path / 'word.pt'}", "--prompt", "a <other>", "--out", str(tmp_path), *FAST])
    assert np.abs(drawn - read(tmp_path / "a_other_000.png")).max() > 0


def test_diffusers_draws_the_same_image(tiny_sd, tmp_path):
    """From the same latents, with DDIM as the folder's scheduler_config.json says."""
    diffusers = pytest.importorskip("diffusers")
    pipeline = diffusers.StableDiffusionPipeline.from_pretrained(tiny_sd, safety_checker=None)
    noise = sample_noise(0, [0])(torch.empty(1, 4, 4, 4))
    theirs = pipeline("a photo of a hazelnut", negative_prompt="a hole", height=16, width=16, num_inference_steps=10,
                      guidance_scale=4.0, latents=noise, output_type="np").images[0]
    sample.main(["--model", str(tiny_sd), "--prompt", "a photo of a hazelnut", "--negative", "a hole", "--steps", "10",
                 "--count", "1", "--precision", "fp32", "--out", str(tmp_path)])
    ours = read(tmp_path / "a_photo_of_a_hazelnut_000.png")
    assert ours.std() > 5 and np.abs(ours - theirs * 255).max() <= 2


@pytest.mark.parametrize(("flags", "fault"), [
    (["--prompts", "nowhere.txt"], "nowhere.txt"),
    (["--prompt", "a", "--strength", "0", "--image", "START"], "strength 0.0 leaves 0 of 4 steps"),
    (["--prompt", "a", "--size", "20"], "x must be"),
])
def test_a_wrong_request_is_one_sentence(tiny_sd, tmp_path, flags, fault):
    Image.new("RGB", (16, 16)).save(tmp_path / "start.png")
    flags = [str(tmp_path / "start.png") if flag == "START" else flag for flag in flags]
    with pytest.raises((ValueError, OSError), match=fault):
        sample.main(["--model", str(tiny_sd), *FAST, "--out", str(tmp_path / "out"), *flags])

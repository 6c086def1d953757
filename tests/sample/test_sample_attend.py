"""sample.py --attend: images of a Stable Diffusion in which the named words are seen, and diffusers' own pipeline."""

from functools import partial

import numpy as np
import pytest
import torch
from PIL import Image

import sample
import weights
from sampling import batched_cfg, sample_latents, sample_noise
from unet import TextConditioned, encode_prompts
from unet.attend import attend_and_excite, cross_attention_layers, token_indices

PROMPT = "a photo of a hazelnut"


@pytest.fixture(scope="module")
def keen(tiny_sd, tmp_path_factory):
    """The tiny Stable Diffusion with larger queries and keys, so that its attention is not the same everywhere."""
    folder, sd = tmp_path_factory.mktemp("keen"), weights.load_sd(tiny_sd)
    with torch.no_grad():
        for layer in cross_attention_layers(sd.unet)[1]:
            layer.to_q.weight.copy_(3 * layer.to_q.weight)
            layer.to_k.weight.copy_(3 * layer.to_k.weight)
    weights.save_sd(sd, folder, "sd-diffusers")
    return folder


def drawn(model, out, *flags):
    common = "--steps 10 --count 1 --precision fp32 --guidance 4".split()
    sample.main(["--model", str(model), "--prompt", PROMPT, *common, "--replace", "--out", str(out), *flags])
    return np.asarray(Image.open(out / "a_photo_of_a_hazelnut_000.png")).astype(int)


def test_diffusers_moves_the_same_latents(keen):
    """From the same noise, with repeated moves at steps 2 and 4 that reach their thresholds in neither."""
    diffusers = pytest.importorskip("diffusers")
    pipeline = diffusers.StableDiffusionAttendAndExcitePipeline.from_pretrained(keen, safety_checker=None)
    noise = sample_noise(0, [0])(torch.empty(1, 4, 4, 4))
    sd = weights.load_sd(keen)
    (place,) = token_indices("hazelnut", PROMPT, sd.tokenizer)
    theirs = pipeline(
        PROMPT,
        [place],
        height=16,
        width=16,
        num_inference_steps=10,
        guidance_scale=4.0,
        latents=noise,
        max_iter_to_alter=5,
        thresholds={0: 0.05, 2: 0.5, 4: 0.8},
        attn_res=(4, 4),
        output_type="latent",
    ).images
    model = TextConditioned(sd.unet, sd.text)
    with torch.no_grad():
        cond, null = encode_prompts(sd.text, sd.tokenizer, [PROMPT, ""]).split(1)
        by = partial(sample_latents, batched_cfg(model, cond, null, 4.0), range(1), (4, 4, 4), sd.schedule, "ddim", 10)
        ours = by(on_step=attend_and_excite(model, cond, [[[place]]], sd.schedule.timesteps(10)))
    torch.testing.assert_close(ours, theirs, atol=1e-3, rtol=0)
    assert (ours - by()).abs().max() > 0.5


def test_several_words_in_half_precision_from_an_image(keen, tmp_path):
    Image.new("RGB", (16, 16), (200, 30, 30)).save(tmp_path / "start.png")
    common = ["--steps", "4", "--precision", "bf16", "--image", str(tmp_path / "start.png"), "--count", "2"]
    plain = drawn(keen, tmp_path / "out", *common)
    seen = drawn(keen, tmp_path / "out", *common, "--attend", "hazelnut", "--attend", "photo")
    assert np.abs(seen - plain).max() > 0


def test_a_wrong_word_is_one_sentence(keen, tiny, tmp_path):
    with pytest.raises(ValueError, match="expected the word 'hole' in the prompt that shall show it, found 'a photo"):
        drawn(keen, tmp_path, "--attend", "hole")
    model = ["--model", str(tiny / "dit.safetensors"), "--vae", str(tiny / "vae.safetensors")]
    with pytest.raises(ValueError, match="--attend is read by a Stable Diffusion .*, not by a DiT"):
        sample.main([*model, "--attend", "crack", "--out", str(tmp_path)])

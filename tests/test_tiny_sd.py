"""The Stable Diffusion that ships: diffusers opens its folder, draws the same images, and exchanges files with us."""

import numpy as np
import pytest
import torch
from PIL import Image

import sample
import train
import weights
from data.generated.photographs import BASE, caption, image
from data.output.samples import file_names
from metrics.networks import features
from sampling import batched_cfg, sample_latents, sample_noise, sample_seeds
from unet import TextConditioned, encode_prompts
from weights import convert
from weights.formats.published import resolve

GUIDANCE, STEPS = 5.0, 10


def ours(tmp_path, prompt, *flags):
    """The image (64, 64, 3) that sample.py draws first."""
    how = f"--count 1 --steps {STEPS} --guidance {GUIDANCE} --precision fp32".split()
    sample.main([*flags, "--prompt", prompt, *how, "--replace", "--out", str(tmp_path)])
    return np.asarray(Image.open(tmp_path / f"{file_names([prompt])[0]}_000.png")).astype(int)


def theirs(pipeline, prompt, **more):
    """The same by diffusers, 0 .. 255."""
    noise = sample_noise(sample_seeds(0, [prompt]), [0])(torch.empty(1, 6, 16, 16))
    return (
        255
        * pipeline(
            prompt,
            height=64,
            width=64,
            num_inference_steps=STEPS,
            guidance_scale=GUIDANCE,
            latents=noise,
            output_type="np",
            **more,
        ).images[0]
    )


@pytest.fixture
def pipeline():
    diffusers = pytest.importorskip("diffusers")
    return diffusers.StableDiffusionPipeline.from_pretrained(resolve("tiny-sd"), safety_checker=None)


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """A few steps of LoRA on both parts and a new word, strong enough to be seen."""
    folder = tmp_path_factory.mktemp("run")
    (folder / "photos").mkdir()
    for i in range(2):
        Image.fromarray(image("hazelnut", "good", "few", i)[0]).save(folder / "photos" / f"{i}.png")
    methods = "--adapter unet.lora:rank=4 --adapter text.lora:rank=2".split()
    word = ["--template", "a photo of a flawless <new>", *"--token <new> --token-init bottle --vectors 2".split()]
    fast = "--lr 0.01 --steps 8 --batch 2 --sample-steps 2 --count 1 --cache= --warmup 0 --ema 0".split()
    base = ["--recipe", "text", "--model", "tiny-sd", "--data", str(folder / "photos"), "--out", str(folder / "run")]
    train.main([*base, *methods, *word, *fast])
    for layout, name in (
        ("kohya", "kohya.safetensors"),
        ("lora-diffusers", "diffusers.safetensors"),
        ("a1111-embedding", "word.pt"),
        ("learned-embeds", "learned_embeds.safetensors"),
    ):
        convert.main([str(folder / "run" / "adapter.safetensors"), str(folder / name), "--layout", layout])
    return folder


def test_diffusers_draws_the_same_image(pipeline, tmp_path):
    """From the same latents, with DDIM as the folder's scheduler_config.json says."""
    prompt = "a photo of a bottle with a print"
    drawn = ours(tmp_path, prompt, "--model", "tiny-sd", "--negative", "a photo of a flawless bottle")
    assert np.abs(drawn - theirs(pipeline, prompt, negative_prompt="a photo of a flawless bottle")).max() <= 2
    other = ours(tmp_path, "a photo of a flawless tile", "--model", "tiny-sd")
    assert np.abs(drawn - other).max() > 100  # and the prompt decides what is drawn


@pytest.mark.filterwarnings("ignore:.*were trained together with it")
@pytest.mark.parametrize("lora", ["kohya.safetensors", "diffusers.safetensors"])
@pytest.mark.parametrize("word", ["word.pt", "learned_embeds.safetensors"])
def test_what_was_trained_here_draws_the_same_image_there(lora, word, run, pipeline, tmp_path):
    pytest.importorskip("peft")
    prompt = "a photo of a <new> with a crack"
    drawn = ours(tmp_path, prompt, "--run", str(run / "run"))
    base = ours(tmp_path, "a photo of a bottle with a crack", "--model", "tiny-sd")
    pipeline.load_lora_weights(run, weight_name=lora)
    pipeline.load_textual_inversion(run, weight_name=word, token="<new>")
    assert np.abs(drawn - theirs(pipeline, prompt)).max() <= 2
    assert np.abs(drawn - base).max() > 20


@pytest.mark.filterwarnings("ignore:.*were trained together with it")
def test_what_was_trained_there_draws_the_same_image_here(pipeline, tmp_path):
    peft = pytest.importorskip("peft")
    targets = ["to_q", "to_k", "to_v", "to_out.0"]
    pipeline.unet.add_adapter(peft.LoraConfig(r=4, lora_alpha=4, target_modules=targets))
    torch.manual_seed(0)
    for name, parameter in pipeline.unet.named_parameters():
        if "lora_B" in name:
            torch.nn.init.normal_(parameter, std=0.3)
    pipeline.save_lora_weights(
        tmp_path, unet_lora_layers=peft.get_peft_model_state_dict(pipeline.unet), weight_name="peft.safetensors"
    )
    prompt = "a photo of a flawless tile"
    drawn = ours(tmp_path, prompt, "--model", "tiny-sd", "--adapter", str(tmp_path / "peft.safetensors"))
    there = theirs(pipeline, prompt)
    assert np.abs(drawn - there).max() <= 2 and np.abs(drawn - ours(tmp_path, prompt, "--model", "tiny-sd")).max() > 20


@torch.no_grad()
def test_it_draws_what_it_is_asked_for():
    """By tiny-features, among all classes of all products; chance is one in 54."""
    network, names = features.load_classifier(resolve("tiny-features") / "model.safetensors")
    sd = weights.load_sd("tiny-sd", dtype=torch.float32)
    asked = [f"{product}/{state}" for product in BASE for state in ("good", "hole")]
    states = encode_prompts(sd.text, sd.tokenizer, [*(caption(*name.split("/")) for name in asked), ""])
    cond = states[:-1].repeat_interleave(2, 0)
    denoiser = batched_cfg(TextConditioned(sd.unet, sd.text), cond, states[-1:], 3.0)
    images = sd.vae.images(sample_latents(denoiser, range(len(cond)), (6, 16, 16), sd.schedule, steps=20, batch=24))
    taken = [names[i] for i in features.embed(network, images.clamp(-1, 1))[1].argmax(1)]
    wanted = [name for name in asked for _ in range(2)]
    assert sum(a == b for a, b in zip(taken, wanted)) / len(wanted) > 0.6


def test_it_is_small_and_has_a_card_with_its_command():
    folder = resolve("tiny-sd")
    assert sum(file.stat().st_size for file in folder.rglob("*") if file.is_file()) < 20e6
    assert "python train.py configs/tiny_sd.toml" in (folder / "README.md").read_text()

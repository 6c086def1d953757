"""Captions as the condition of a Stable Diffusion: each is read once, as states where the text encoder is frozen."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from PIL import Image

import adapters
import weights
from config.training import Images, Prior, Sampling
from ops.device import Compute
from recipes.conditions.captions import Captions
from recipes.models.loading import load_sd, new_sd
from recipes.samples.class_images import sample_class
from recipes.samples.masked import conditions_of
from tests.fakes import tiny_xl
from unet import encode_prompts
from unet.text.pair import in_chunks
from unet.text.prompt import caption_tokens, escape

TEXTS = ["a photo of a pill", "a hole", "a photo of a pill"]
CPU = Compute(torch.device("cpu"), "fp32")
OTHERS = {"sampler": "ddpm", "sample_steps": 7, "guidance": 5.0}


@pytest.fixture
def condition(tiny_sd, tmp_path):
    """Three images, two of one caption."""
    for i, text in enumerate(TEXTS):
        Image.new("RGB", (16, 16), (40 * i, 90, 20)).save(tmp_path / f"{i}.png")
        (tmp_path / f"{i}.txt").write_text(text)
    settings = Images(data=str(tmp_path), flips="none", rotations="0")
    return Captions(load_sd(str(tiny_sd), CPU), settings, "", "", CPU)


def test_a_frozen_text_encoder_reads_each_caption_once(condition):
    model, tokenizer = condition.model, condition.sd.tokenizer
    adapters.attach(model, "unet.bitfit")
    states, row = condition.read(TEXTS)
    assert states.shape == (3, 16, 16) and row.tolist() == [0, 1, 0]
    assert torch.equal(states[2:], model.text(tokenizer.tokens([""])))
    assert torch.equal(condition.null, states[2:])
    adapters.attach(model, "text.full")
    tokens, _ = condition.read(TEXTS)
    assert tokens.dtype == torch.long and tokens.shape == (3, 16)
    assert torch.equal(condition.null, tokenizer.tokens([""]))


def test_a_long_caption_is_read_as_it_is_sampled(condition):
    """In chunks, as the prompt that shows it; so are shorter ones beside it, and the empty one."""
    model, tokenizer, long = condition.model, condition.sd.tokenizer, "a hole, (BREAK) " + "a photo of a pill, " * 4
    condition.texts = [*TEXTS, long]
    expected = encode_prompts(model.text, tokenizer, [escape(text) for text in (*TEXTS[:2], long, "")])
    n = expected.shape[1] // tokenizer.length
    assert n > 1
    adapters.attach(model, "unet.bitfit")
    states, row = condition.read([*TEXTS, long])
    torch.testing.assert_close(states, expected.float())
    assert row.tolist() == [0, 1, 0, 2] and condition.null.shape == condition.read(["a hole"])[0][:1].shape
    adapters.attach(model, "text.full")
    tokens, _ = condition.read([*TEXTS, long])
    x, t = torch.randn(4, 4, 4, 4), torch.arange(4)
    torch.testing.assert_close(model(x, t, tokens), model(x, t, expected))


def test_a_long_caption_of_xl_is_read_as_it_is_sampled():
    """Both tokenizers make chunks, the pooled text is that of the first, and no text stays none."""
    sd = tiny_xl(length=16, input_size=8)
    texts = ["a hole", "a hole, " * 9]
    rows = in_chunks(sd.text, caption_tokens(sd.tokenizer, [*texts, ""]))
    torch.testing.assert_close(rows[:2], encode_prompts(sd.text, sd.tokenizer, texts))
    assert (rows[2] == 0).all()


def test_a_batch_has_the_captions_of_its_images(condition):
    adapters.attach(condition.model, "unet.bitfit")
    batch = condition.batches()(torch.tensor([1, 2, 0]), torch.Generator().manual_seed(0))
    states, _ = condition.read(TEXTS)
    assert torch.equal(batch["cond"], states[[1, 0, 0]]) and batch["x0"].shape == (3, 4, 4, 4)
    assert condition.texts == condition.kinds() == TEXTS and condition.columns == TEXTS[:2]


def test_a_method_without_a_part_is_for_the_unet(condition):
    assert condition.methods(["lora", "text.lora:rank=2"]) == ["unet.lora", "text.lora:rank=2"]


def test_a_new_one_of_an_unknown_size(tiny):
    with pytest.raises(ValueError, match="unknown size 'SD-X'; a new Stable Diffusion is new:SD-T"):
        new_sd("new:SD-X", str(tiny / "vae.safetensors"), "generated:hazelnut/few/1", "", CPU)
    sd = new_sd("new:SD-T", str(tiny / "vae.safetensors"), "generated:hazelnut/few/1", "", CPU)
    assert sd.unet.config.in_channels == 4 and len(sd.tokenizer) == sd.text.token_embedding.num_embeddings
    assert not any(p.requires_grad for p in sd.vae.parameters()) and isinstance(sd, weights.StableDiffusion)


@pytest.mark.parametrize("text", ["a pill (toy)", "a [pill]", "a (pill:1.5)", "a BREAK pill", "a pill"])
def test_a_caption_as_a_prompt_is_read_as_it_was_trained_on(tiny_sd, tmp_path, monkeypatch, text):
    """Without weights in its brackets; a prompt of the user has them."""
    Image.new("RGB", (16, 16)).save(tmp_path / "1.png")
    (tmp_path / "1.txt").write_text(text)
    settings = Images(data=str(tmp_path), flips="none", rotations="0")
    condition = Captions(load_sd(str(tiny_sd), CPU), settings, "", "", CPU)
    condition.model.requires_grad_(False)
    asked = []
    monkeypatch.setattr(condition, "sample", lambda prompts, *_: asked.extend(prompts))
    condition.sample_columns(1, None, 0)
    states = encode_prompts(condition.sd.text, condition.sd.tokenizer, asked)
    assert condition.columns == [text] and torch.allclose(states[0], condition.read([text])[0][0], atol=1e-5)
    assert (asked == [text]) == (text == "a pill")
    own = Captions(load_sd(str(tiny_sd), CPU), settings, "", "", CPU, prompts=[text])
    assert own.prompts == [text]


def test_a_place_of_a_pass_is_the_image_that_stands_there(condition, monkeypatch):
    """With repeats a pass has more places than there are images."""
    condition.places = torch.tensor([0, 0, 2, 1])
    monkeypatch.setattr(condition, "batches_of", lambda *_: lambda index, generator: index.tolist())
    assert condition.batches()(torch.tensor([3, 1, 2]), None) == [1, 0, 2]


def test_samples_are_led_away_from_the_empty_caption(condition, monkeypatch):
    away = []
    monkeypatch.setattr("recipes.conditions.captions.batched_cfg", lambda model, cond, null, scale: away.append(null))
    monkeypatch.setattr("recipes.conditions.captions.sample_images", lambda *_: None)
    condition.sample(["a hole", "a photo of a pill"], Sampling(), 0)
    empty = encode_prompts(condition.model.text, condition.sd.tokenizer, ["", "a hole"])[:1].float()
    assert torch.equal(away[0], empty)


def test_images_of_the_class_are_kept_by_all_that_they_depend_on(condition, tmp_path, monkeypatch):
    """The base, the prompt, the sampler, its steps, guidance and seed each have a folder of their own."""
    condition.cache = str(tmp_path / "cache")
    monkeypatch.setattr(condition, "sample", lambda prompts, *_: np.zeros((len(prompts), 16, 16, 3), np.uint8))
    prior, settings = Prior(class_prompt="a pill", class_images=1), Sampling()
    calls = [(prior, settings, 0), (replace(prior, class_prompt="a hole"), settings, 0), (prior, settings, 1)]
    calls += [(prior, replace(settings, **{name: value}), 0) for name, value in OTHERS.items()]
    for call in [*calls, calls[0]]:
        sample_class(condition, *call)
    assert len(list((tmp_path / "cache").iterdir())) == len(calls)
    with torch.no_grad():
        next(condition.model.parameters()).add_(1)
    sample_class(condition, *calls[0])
    assert len(list((tmp_path / "cache").iterdir())) == len(calls) + 1


def test_a_controlnet_is_led_away_from_the_empty_caption(condition):
    with torch.no_grad():
        cond, null = conditions_of(condition)(torch.arange(3))
        expected = encode_prompts(condition.model.text, condition.sd.tokenizer, [*TEXTS, ""]).float()
    assert torch.equal(cond, expected[:3]) and torch.equal(null, expected[3:])

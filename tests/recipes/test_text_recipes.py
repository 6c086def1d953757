"""The text recipes, run as a user runs them, on a tiny Stable Diffusion."""

import json

import pytest
import torch
from PIL import Image

import sample
import train
import weights
from unet import TextConditioned

FAST = (
    "--data generated:hazelnut/few/1 --size 16 --steps 2 --batch 2 --sample-steps 2 --count 1 --cache= --flips none "
    "--rotations 0 --precision fp32"
).split()


def run(tmp_path, tiny_sd, recipe, *flags, name="run"):
    out = tmp_path / name
    train.main(["--recipe", recipe, "--model", str(tiny_sd), *FAST, *flags, "--out", str(out)])
    return out


def folder(tmp_path):
    """Two plain pictures."""
    photos = tmp_path / "photos"
    photos.mkdir()
    for i in range(2):
        Image.new("RGB", (16, 16), (40 * i, 90, 20)).save(photos / f"{i}.png")
    return str(photos)


def trained(tiny_sd, out):
    """The tiny model with the run's adapter, and what the run says of itself."""
    sd = weights.load_sd(tiny_sd)
    model = weights.apply_adapters(TextConditioned(sd.unet, sd.text), [(str(out / "adapter.safetensors"), 1.0)])
    return model, weights.load_adapter(out / "adapter.safetensors")


def test_lora_on_unet_and_text_encoder_with_rates_of_their_own(tmp_path, tiny_sd, capsys):
    methods = "--adapter lora:rank=2 --adapter text.lora:rank=3".split()
    rates = "--lr 1e-2 --text-lr 1e-30 --lr-schedule constant --warmup 0 --ema 0".split()
    out = run(tmp_path, tiny_sd, "text", *methods, *rates)
    assert "5 images: 5 captions from the generator" in capsys.readouterr().out
    tensors, recipe = weights.load_adapter(out / "adapter.safetensors")
    assert recipe["adapter"] == ["unet.lora:rank=2", "text.lora:rank=3"]
    moved = {name.split(".")[0] for name, tensor in tensors.items() if "lora_up" in name and tensor.abs().max() > 1e-6}
    assert moved == {"unet"}  # the text encoder's rate is as good as none
    assert {p.name for p in (out / "samples").iterdir()} == {"step_000000.png", "step_000002.png"}
    assert (out / "grid.png").is_file() and "val" in (out / "log.jsonl").read_text()


def test_an_adapter_draws_through_load_what_training_drew(tmp_path, tiny_sd):
    out = run(tmp_path, tiny_sd, "text", "--adapter", "lora:rank=2", "--lr", "0.1", "--warmup", "0")
    model, (tensors, _) = trained(tiny_sd, out)
    plain = weights.load_sd(tiny_sd).unet
    x, t = torch.randn(1, 4, 4, 4), torch.tensor([500])
    states = torch.randn(1, 16, 16)
    assert not torch.allclose(model(x, t, states), plain(x, t, states)) and len(tensors) == 2 * 8 * 4


def test_full_fine_tuning_leaves_a_folder_that_loads(tmp_path, tiny_sd):
    out = run(tmp_path, tiny_sd, "text", "--adapter", "unet.full", "--lr", "1e-2")
    before, after = weights.load_sd(tiny_sd), weights.load_sd(out / "model")
    moved = [not torch.equal(a, b) for a, b in zip(before.unet.parameters(), after.unet.parameters())]
    same = [torch.equal(a, b) for a, b in zip(before.text.parameters(), after.text.parameters())]
    assert all(same) and sum(moved) > len(moved) / 2 and not (out / "adapter.safetensors").exists()


def test_gaussian_weights_of_a_whole_unet_keep_their_deviations(tmp_path, tiny_sd):
    """model/ holds their means; --weights sampled draws them by the file beside it, the same for the same seed."""
    out = run(tmp_path, tiny_sd, "text", *"--adapter unet.full --adapter unet.bnn:sigma=0.2 --lr 1e-3".split())
    tensors, header = weights.load_adapter(out / "deviations.safetensors")
    assert (out / "model").is_dir() and header["adapter"] == ["unet.bnn:sigma=0.2"]
    assert {name.rpartition(".")[2] for name in tensors} == {"weight", "weight_sigma", "bias", "bias_sigma"}
    assert any(tensor.std() > 0 for name, tensor in tensors.items() if name.endswith("weight_sigma"))  # trained
    shown = []
    for kind in ("mean", "sampled", "sampled"):
        folder = tmp_path / f"{kind}{len(shown)}"
        flags = f"--prompt x --steps 2 --count 1 --precision fp32 --weights {kind} --seed 3 --out {folder}"
        sample.main(["--run", str(out), *flags.split()])
        shown.append(Image.open(folder / "x_000.png").tobytes())
    assert shown[0] != shown[1] == shown[2]


def test_a_whole_unet_and_a_new_word_become_one_folder(tmp_path, tiny_sd):
    settings = "--adapter unet.full --lr 1e-2 --token hazelnuts --token-init hazelnut".split()
    data = ["--data", folder(tmp_path), "--template", "a photo of hazelnuts"]
    out = run(tmp_path, tiny_sd, "text", *settings, *data)
    sd, before = weights.load_sd(out / "model"), weights.load_sd(tiny_sd)
    assert sd.tokenizer.encode("hazelnuts") == [len(before.tokenizer)]
    assert sd.text.config.vocab_size == len(sd.tokenizer)
    row = before.text.token_embedding.weight[before.tokenizer.encode("hazelnut")[0]]
    assert not torch.equal(sd.text.token_embedding.weight[-1], row)


def test_textual_inversion_learns_rows_and_reports_their_norm(tmp_path, tiny_sd):
    data = ["--data", folder(tmp_path), "--template", "a photo of a <thing>"]
    word = "--token <thing> --token-init hazelnut --vectors 2 --lr 1e-2".split()
    out = run(tmp_path, tiny_sd, "textual_inversion", *data, *word)
    tensors, recipe = weights.load_adapter(out / "adapter.safetensors")
    assert recipe["tokens"] == {"<thing>": 2} and [*tensors] == ["text.token_embedding.token_rows"]
    lines = [json.loads(line) for line in (out / "log.jsonl").read_text().splitlines()]
    evaluations = [line for line in lines if "token_norm" in line]
    assert evaluations[0]["nearest_word"] == "hazelnut"
    assert evaluations[0]["token_norm"] != evaluations[-1]["token_norm"]
    model, _ = trained(tiny_sd, out)
    known = weights.load_sd(tiny_sd).text.token_embedding.weight
    assert torch.equal(model.text.token_embedding.weight[: len(known)], known)  # no other word has moved
    assert len(model.text.token_embedding.weight) == len(known) + 2


def test_dreambooth_draws_its_class_images_once(tmp_path, tiny_sd):
    flags = "--adapter lora:rank=2 --class-images 3".split()
    flags += ["--class-prompt", "a photo of a hazelnut", "--cache", str(tmp_path / "cache")]
    first = run(tmp_path, tiny_sd, "dreambooth", *flags, name="first")
    images = sorted((tmp_path / "cache").glob("class-*/*.png"))
    assert len(images) == 3
    stamps = [path.stat().st_mtime_ns for path in images]
    second = run(tmp_path, tiny_sd, "dreambooth", *flags, name="second")
    assert [path.stat().st_mtime_ns for path in images] == stamps
    assert (first / "adapter.safetensors").read_bytes() == (second / "adapter.safetensors").read_bytes()
    lines = [json.loads(line) for line in (first / "log.jsonl").read_text().splitlines()]
    assert all("prior" in line for line in lines if "mse" in line)


def test_the_prior_is_a_second_term_of_the_loss(tmp_path, tiny_sd):
    common = ["--adapter", "lora:rank=2", "--cond-dropout", "0", "--steps", "1"]
    prior = ["--class-prompt", "a photo of a pill", "--class-images", "2"]
    losses = {}
    for weight in ("0.0", "0.5", "1.0"):
        more = [*common, "--prior-weight", weight, *(prior if float(weight) else [])]
        out = run(tmp_path, tiny_sd, "dreambooth", *more, name=weight)
        losses[weight] = json.loads((out / "log.jsonl").read_text().splitlines()[1])
    for weight in ("0.5", "1.0"):
        line = losses[weight]
        assert line["loss"] == pytest.approx(line["mse"] + float(weight) * line["prior"], rel=1e-5)
    assert "prior" not in losses["0.0"]
    with pytest.raises(ValueError, match="--class-images has no effect without --prior-weight"):
        run(tmp_path, tiny_sd, "dreambooth", "--prior-weight", "0", "--class-images", "3", name="none")


@pytest.mark.parametrize(
    ("recipe", "flags", "fault"),
    [
        ("textual_inversion", [], "textual inversion learns a word"),
        ("text", ["--token", "pill"], "token_init must be one token of the vocabulary, found '', which is 0"),
        ("text", ["--token", "<x>", "--token-init", "zebra"], "found 'zebra', which is 5"),
        ("text", ["--token", "<x>", "--token-init", "hazelnut"], "5 of 5 captions lack the token '<x>'"),
        ("text", ["--token", "<x>", "--token-init", "a hole"], r"'a hole', which is 2: \['a', 'hole'\]"),
        ("text", ["--token", "hazelnut", "--token-init", "a"], "'hazelnut' is in the vocabulary"),
        ("text", ["--token", " ", "--token-init", "a"], "one word without white space, found ' '"),
        ("text", ["--token-init", "a"], "--token-init has no effect without --token"),
        ("text", ["--vectors", "2"], "--vectors has no effect without --token"),
        ("text", ["--text-lr", "1e-3"], "text_lr = 0.001 has no effect: nothing in the text encoder trains"),
        ("dreambooth", [], "dreambooth keeps the class by samples of it: give --class_prompt"),
        ("dreambooth", ["--class-prompt", "  "], "dreambooth keeps the class by samples of it: give --class_prompt"),
        ("text", ["--size", "20"], "size must be a multiple of 8 pixels, found 20"),
        ("text", ["--adapter", "vae.lora"], "the model has no part 'vae': it has unet, text"),
        ("text", ["--adapter", "classes"], "this UNet has none"),
        ("text", ["--model", "new:SD-X"], "unknown size 'SD-X'; a new Stable Diffusion is new:SD-T"),
    ],
)
def test_what_cannot_be_trained(tmp_path, tiny_sd, recipe, flags, fault):
    methods = [] if recipe == "textual_inversion" else ["--adapter", "lora"]
    with pytest.raises(ValueError, match=fault):
        run(tmp_path, tiny_sd, recipe, *methods, *flags)
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("captions", "fault"),
    [
        (["a", ""], "1.txt, first line: the caption is empty"),
        (["a", " \n a"], "1.txt, first line: the caption is empty"),
        (["a", "a" * 10_001], "1.txt, first line: 10001 characters; a caption has at most 10000"),
        (["a", "a" * 10**6], "1.txt: 1000000 bytes; a caption has at most 10000 characters"),
        (
            ["a"],
            "of 2 images these have no caption, 1: 1.png; give a template, a .txt beside each, or a metadata.jsonl",
        ),
    ],
)
def test_a_caption_that_is_none(tmp_path, tiny_sd, captions, fault):
    photos = folder(tmp_path)
    for i, caption in enumerate(captions):
        (tmp_path / "photos" / f"{i}.txt").write_text(caption)
    with pytest.raises(ValueError, match=fault):
        run(tmp_path, tiny_sd, "text", "--adapter", "lora", "--data", photos)
    assert not (tmp_path / "run").exists()


def test_a_caption_of_several_chunks_is_trained_on_whole(tmp_path, tiny_sd, recwarn):
    """With the text encoder frozen, and training: 16 tokens where a chunk has 14."""
    data = ["--data", folder(tmp_path), "--template", "hole " * 16]
    for name, spec in (("frozen", "lora"), ("trained", "text.lora")):
        run(tmp_path, tiny_sd, "text", "--adapter", spec, *data, name=name)
    assert not [warning for warning in recwarn if "cut off" in str(warning.message)]


def test_a_mask_of_another_size_is_named(tmp_path, tiny_sd):
    photos = folder(tmp_path)
    Image.new("L", (8, 16)).save(tmp_path / "photos" / "1_mask.png")
    with pytest.raises(ValueError, match="1_mask.png: a mask is as large as .*1.png is 16x16, the mask 8x16"):
        run(tmp_path, tiny_sd, "text", "--adapter", "lora", "--data", photos, "--template", "a hole")


def test_a_new_stable_diffusion_learns_its_vocabulary_from_the_captions(tmp_path, tiny):
    out = tmp_path / "run"
    new = ["--recipe", "text", "--model", "new:SD-T", "--vae", str(tiny / "vae.safetensors")]
    train.main([*new, *FAST, "--adapter", "unet.full", "--adapter", "text.full", "--out", str(out)])
    sd = weights.load_sd(out / "model")
    assert len(sd.tokenizer) == sd.text.config.vocab_size and sd.unet.config.out_channels == 4
    assert len(sd.tokenizer.encode("hazelnut")) == 1 and (out / "model" / "model_index.json").is_file()

"""sample.py on Stable Diffusion: prompts, a learned word, an image to start from, files of other tools and back."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import save_file

import adapters
import sample
import train
import weights
from unet import TextConditioned, UNet
from weights import convert

FAST = ["--steps", "4", "--count", "1", "--precision", "fp32"]


def read(path):
    return np.asarray(Image.open(path)).astype(int)


def test_each_prompt_is_a_column_and_a_file(tiny_sd, tmp_path):
    (tmp_path / "list.txt").write_text("a hole\n\na flawless (pill:1.3)\n")
    prompts = ["--prompt", "a hazelnut", "--prompts", str(tmp_path / "list.txt")]
    sample.main(["--model", str(tiny_sd), *prompts, "--out", str(tmp_path / "out"), *FAST])
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == [
        "a_flawless_pill_1_3_000.png",
        "a_hazelnut_000.png",
        "a_hole_000.png",
        "grid.png",
    ]


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
        start = ["--image", str(tmp_path / "start.png"), "--strength", strength]
        model = ["--model", str(tiny_sd), "--prompt", "a hazelnut"]
        sample.main([*model, *start, "--out", str(tmp_path / strength), *FAST])
        far.append(np.abs(read(tmp_path / strength / "a_hazelnut_000.png") - decoded.clamp(0, 255).numpy()).mean())
    assert far[0] < far[1] < far[2]


def word_run(tiny_sd, tmp_path, *more):
    """Flags of a run that learns <thing> from one picture."""
    (tmp_path / "photos").mkdir()
    Image.new("RGB", (16, 16), (40, 90, 20)).save(tmp_path / "photos" / "0.png")
    data = ["--data", str(tmp_path / "photos"), "--template", "a <thing>"]
    common = "--token <thing> --token-init hazelnut --batch 1 --sample-steps 2 --count 1 --cache= --warmup 0".split()
    return ["--model", str(tiny_sd), *data, *common, "--out", str(tmp_path / "run"), *more]


def test_a_run_draws_with_its_own_word(tiny_sd, tmp_path):
    train.main(word_run(tiny_sd, tmp_path, "--recipe", "textual_inversion", "--lr", "0.5", "--steps", "2"))
    common = ["--prompt", "a photo of a <thing>", *FAST]
    sample.main(["--run", str(tmp_path / "run"), *common])
    sample.main(["--model", str(tiny_sd), "--prompt", "a photo of a hazelnut", *FAST, "--out", str(tmp_path / "plain")])
    learned = read(tmp_path / "run" / "drawn" / "a_photo_of_a_thing_000.png")
    assert np.abs(learned - read(tmp_path / "plain" / "a_photo_of_a_hazelnut_000.png")).max() > 0


@pytest.mark.filterwarnings("ignore:.*were trained together with it")
def test_a_run_goes_to_other_tools_and_back(tiny_sd, tmp_path):
    methods = "--adapter unet.lora --adapter text.lora --lr 0.05 --steps 3".split()
    train.main(word_run(tiny_sd, tmp_path, "--recipe", "text", *methods))
    for layout, name in (("kohya", "lora.safetensors"), ("a1111-embedding", "word.pt")):
        convert.main([str(tmp_path / "run" / "adapter.safetensors"), str(tmp_path / name), "--layout", layout])
    common = ["--prompt", "a <thing>", *FAST]
    sample.main(["--run", str(tmp_path / "run"), *common])
    model, lora, word = ["--model", str(tiny_sd)], str(tmp_path / "lora.safetensors"), str(tmp_path / "word.pt")
    sample.main([*model, "--adapter", lora, "--embedding", word, "--out", str(tmp_path), *common])
    drawn = read(tmp_path / "run" / "drawn" / "a_thing_000.png")
    assert np.abs(drawn - read(tmp_path / "a_thing_000.png")).max() <= 1
    other = ["--adapter", f"{lora}:0.5", "--embedding", f"<other>={word}", "--prompt", "a <other>"]
    sample.main([*model, *other, "--replace", "--out", str(tmp_path), *FAST])
    assert np.abs(drawn - read(tmp_path / "a_other_000.png")).max() > 0


def test_a_prompt_of_spaces_is_the_empty_one(tiny_sd, tmp_path):
    for name, prompt in (("a", ""), ("b", "  \t")):
        sample.main(["--model", str(tiny_sd), "--prompt", prompt, "--out", str(tmp_path / name), *FAST])
    assert np.array_equal(read(tmp_path / "a" / "000__000.png"), read(tmp_path / "b" / "000__000.png"))


def test_a_gigantic_prompt_is_read_to_its_end(tiny_sd, tmp_path):
    for name, last in (("a", "hole "), ("b", "pill ")):
        prompt = "photo " * 200 + last * 200
        sample.main(["--model", str(tiny_sd), "--prompt", prompt, "--out", str(tmp_path / name), *FAST])
    a, b = (read(next((tmp_path / name).glob("photo_*.png"))) for name in "ab")
    assert np.abs(a - b).max() > 0


@pytest.mark.parametrize("name", ["kohya's", "ours"])
def test_an_adapter_of_another_base_says_of_which(tiny_sd, tmp_path, name):
    path, sd = tmp_path / "a.safetensors", weights.load_sd(tiny_sd)
    if name == "kohya's":
        stem = "lora_unet_mid_block_attentions_0_transformer_blocks_0_attn2_to_k"
        save_file({f"{stem}.lora_down.weight": torch.ones(2, 768), f"{stem}.lora_up.weight": torch.ones(16, 2)}, path)
        fault = "for a base with text states 16 wide, .* 768.*, here .16, 16.*; it was made for Stable Diffusion 1$"
    else:
        unet = UNet(replace(sd.unet.config, channels=(8, 24)))
        model = TextConditioned(unet, sd.text)
        header = {"base": weights.fingerprint(model), "adapter": ["unet.bitfit"]}
        weights.save_adapter(path, adapters.attach(model, "unet.bitfit"), header)
        fault = r"a.safetensors: trained on another base: unet channels \[8, 24\] but here \[8, 16\]$"
    with pytest.raises(ValueError, match=fault):
        sample.main(["--model", str(tiny_sd), "--prompt", "a", "--adapter", str(path), "--out", str(tmp_path), *FAST])
    assert not list(tmp_path.glob("*.png"))


def test_nothing_black_is_drawn_where_numbers_run_over(tiny_sd, tmp_path):
    with pytest.raises(ValueError, match="found NaN or infinity in it: weights of the model or of an adapter"):
        sample.main(["--model", str(tiny_sd), "--prompt", "a", "--guidance", "1e38", "--out", str(tmp_path), *FAST])
    assert not list(tmp_path.glob("*.png"))


@pytest.mark.parametrize(
    ("flags", "fault"),
    [
        (["--prompts", "nowhere.txt"], "nowhere.txt"),
        (["--prompts", "BLANK"], "blank.txt: expected a prompt in each line, found none"),
        (["--prompt", "a", "--strength", "0.2", "--image", "START"], "strength 0.2 leaves 0 of 4 steps"),
        (
            ["--prompt", "a", "--strength", "0", "--image", "START"],
            "--strength must be above 0 and at most 1, found 0.0",
        ),
        (["--prompt", "a", "--strength", "0.5"], "--strength has no effect without --image"),
        ([], "what shall the images show"),
        (["--prompt", "a", "--negative", "b", "--guidance", "1"], "--negative has no effect at guidance 1"),
        (["--prompt", "a", "--vae", "tiny-vae"], "--vae is read by a DiT, not by a Stable Diffusion"),
        (["--prompt", "a", "--hint", "START"], "start.png is read by a ControlNet, give --control or the --run of one"),
        (["--prompt", "a", "--size", "20"], "size must be a multiple of 8 pixels, found 20"),
        (["--prompt", "a", "--size", "-16"], "--size must be at least 0, found -16"),
        (["--prompt", "a", "--count", "0"], "--count must be at least 1, found 0"),
        (["--prompt", "a", "--batch", "0"], "--batch must be at least 1, found 0"),
        (["--prompt", "a", "--adapter", "nowhere.safetensors"], "nowhere.safetensors: .*found no such file"),
    ],
)
def test_a_wrong_request_is_one_sentence(tiny_sd, tmp_path, flags, fault):
    Image.new("RGB", (16, 16)).save(tmp_path / "start.png")
    (tmp_path / "blank.txt").write_text(" \n\n")
    files = {"START": str(tmp_path / "start.png"), "BLANK": str(tmp_path / "blank.txt")}
    flags = [files.get(flag, flag) for flag in flags]
    with pytest.raises((ValueError, OSError), match=fault):
        sample.main(["--model", str(tiny_sd), *FAST, "--out", str(tmp_path / "out"), *flags])


def test_classes_are_for_a_dit(tiny_sd, tmp_path):
    with pytest.raises(ValueError, match="--classes is read by a DiT and a DiT of a run, not by a Stable Diffusion"):
        sample.main(["--model", str(tiny_sd), "--classes", "pill", "--out", str(tmp_path / "drawn")])
    assert not (tmp_path / "drawn").exists()


def embedding(path, width, name="trained-alias-1500"):
    torch.manual_seed(0)
    rows = {"*": torch.randn(2, width)}
    torch.save({"string_to_token": {"*": 265}, "string_to_param": rows, "name": name, "step": 1500}, path)
    return str(path)


def test_an_embedding_that_no_prompt_names_is_refused_and_its_word_is_said(tiny_sd, tmp_path, capsys):
    file = embedding(tmp_path / "badhands.pt", weights.load_sd(tiny_sd).text.config.width)
    common = ["--model", str(tiny_sd), "--prompt", "a hole", "--replace", "--out", str(tmp_path / "out"), *FAST]
    with pytest.raises(ValueError, match="badhands.pt: no prompt, --negative, .* names its word 'trained-alias-1500'"):
        sample.main([*common, "--embedding", file, "--negative", "badhands"])
    assert f"{file}: its word is 'trained-alias-1500'" in capsys.readouterr().out
    sample.main([*common, "--embedding", file, "--negative", "trained-alias-1500"])
    for place in (["--negative", "badhands"], ["--without", "badhands:1"], ["--also", "a badhands:0.5"]):
        sample.main([*common, "--embedding", f"badhands={file}", *place])
    assert "its word is 'badhands'" in capsys.readouterr().out


def test_the_runs_own_word_missing_from_every_prompt_is_said(tiny_sd, tmp_path, capsys):
    train.main(word_run(tiny_sd, tmp_path, "--recipe", "textual_inversion", "--steps", "1"))
    capsys.readouterr()
    for prompt, said in (("a hole", True), ("a <thing>", False), ("a <THING>", False)):
        sample.main(["--run", str(tmp_path / "run"), "--prompt", prompt, "--out", str(tmp_path / prompt), *FAST])
        assert ("note: no prompt names '<thing>', which was learned" in capsys.readouterr().err) is said


def test_prompts_in_a_file_with_a_byte_order_mark_are_the_same(tiny_sd, tmp_path):
    for name, mark in (("a", b""), ("b", b"\xef\xbb\xbf")):
        (tmp_path / f"{name}.txt").write_bytes(mark + b"a hole\r\n")
        out = ["--prompts", str(tmp_path / f"{name}.txt"), "--out", str(tmp_path / name)]
        sample.main(["--model", str(tiny_sd), *out, *FAST])
    assert (tmp_path / "a" / "a_hole_000.png").read_bytes() == (tmp_path / "b" / "a_hole_000.png").read_bytes()

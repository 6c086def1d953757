"""The text recipes on a tiny Stable Diffusion XL, run as a user runs them: what trains, what is left, what samples."""

import json

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file, save_file

import sample
import train
import weights
from data import ImageSet
from data.transforms import Transform, Variant, apply_variant
from recipes.images.sizes import image_sizes
from tests.fakes import tiny_xl
from unet import TextConditioned
from weights.convert import convert
from weights.formats import safe

FAST = (
    "--data generated:hazelnut/few/1 --size 32 --steps 2 --batch 2 --sample-steps 2 --count 1 --cache= --flips h "
    "--rotations 0 --precision fp32 --lr 0.05 --warmup 0 --ema 0"
).split()


@pytest.fixture(scope="module")
def xl(tmp_path_factory):
    folder = tmp_path_factory.mktemp("tiny-xl")
    weights.save_sd(tiny_xl(length=16, input_size=8), folder, "sd-diffusers")
    return folder


@pytest.fixture
def subject(tmp_path):
    for i in range(2):
        Image.new("RGB", (60, 40), (40 * i, 90, 20)).save(tmp_path / f"{i}.png")
    return ["--data", str(tmp_path), "--template", "a photo of sks pill"]


def run(folder, xl, recipe, *flags):
    train.main(["--recipe", recipe, "--model", str(xl), *FAST, *flags, "--out", str(folder / "run")])
    return folder / "run"


def adapter(out):
    return weights.load_adapter(out / "adapter.safetensors")


@pytest.mark.parametrize(
    "specs",
    [
        ["lora:rank=2"],
        ["lora:rank=2", "text.lora:rank=2"],
        ["dora:rank=2"],
        ["bnn"],
        ["crossattn"],
        ["oft:blocks=2"],
        ["bottleneck:width=4"],
    ],
    ids=lambda specs: "+".join(specs),
)
def test_every_kind_of_adapter_trains_and_samples(tmp_path, xl, specs):
    out = run(tmp_path, xl, "text", *(word for spec in specs for word in ("--adapter", spec)))
    tensors, header = adapter(out)
    assert header["base"]["config"]["unet pooled"] == 24 and all(tensor.isfinite().all() for tensor in tensors.values())
    if specs[0] not in ("lora:rank=2", "bnn"):
        return
    shape = ["--prompt", "a photo of a pill", "--size", "32x64", "--count", "1", "--steps", "2"]
    sample.main(["--run", str(out), *shape, "--out", str(tmp_path / "a"), "--original-size", "600x400"])
    sample.main(["--model", str(xl), *shape, "--out", str(tmp_path / "b"), "--original-size", "600x400"])
    first, second = (np.array(Image.open(next((tmp_path / name).glob("*_000.png")))) for name in "ab")
    assert first.shape == (64, 32, 3) and (first != second).any()


def test_a_new_word_has_a_row_in_each_text_encoder(tmp_path, xl, subject, capsys):
    subject[-1] = "a photo of a sks"
    out = run(tmp_path, xl, "textual_inversion", *subject, "--token", "sks", "--token-init", "pill")
    tensors, header = adapter(out)
    assert sorted(tensor.shape for tensor in tensors.values()) == [(1, 16), (1, 32)] and header["tokens"] == {"sks": 1}
    convert(out, tmp_path / "sks.safetensors", "learned-embeds")
    assert {n: t.shape for n, t in load_file(tmp_path / "sks.safetensors").items()} == {
        "clip_l": (1, 16),
        "clip_g": (1, 32),
    }
    call = ["--prompt", "a photo of a sks", "--size", "32", "--count", "1", "--steps", "2"]
    sample.main(["--run", str(out), *call, "--out", str(tmp_path / "a")])
    embedding = ["--embedding", str(tmp_path / "sks.safetensors")]
    sample.main(["--model", str(xl), *embedding, *call, "--out", str(tmp_path / "b")])
    assert Image.open(tmp_path / "a/grid.png").tobytes() == Image.open(tmp_path / "b/grid.png").tobytes()
    with pytest.raises(ValueError, match="which A1111 reads as learned-embeds writes it"):
        convert(out, tmp_path / "sks.pt", "a1111-embedding")
    with pytest.raises(ValueError, match="an embedding 16 and 32 wide, of Stable Diffusion XL, expected one for this"):
        sample.main(["--model", "tiny-sd", *embedding, *call, "--out", str(tmp_path / "c")])


def test_dreambooth_leaves_a_folder_that_loads(tmp_path, xl, subject):
    prior = ["--class_prompt", "a photo of a pill", "--class_images", "2"]
    out = run(tmp_path, xl, "dreambooth", *subject, *prior, "--adapter", "unet.full")
    sd = weights.load_sd(out / "model")
    assert isinstance(sd.tokenizer, type(weights.load_sd(xl).tokenizer)) and sd.unet.config.pooled == 24


def test_four_steps_are_distilled(tmp_path, xl):
    train.main(
        [
            *[
                "--recipe",
                "consistency",
                "--model",
                str(xl),
                "--adapter",
                "lora:rank=2",
                "--out",
                str(tmp_path / "run"),
            ],
            *["--data", "generated:hazelnut/few/1", "--size", "32", "--steps", "2", "--batch", "2", "--count", "1"],
            *["--cache=", "--flips", "none", "--rotations", "0"],
        ]
    )
    sample.main(["--run", str(tmp_path / "run"), "--prompt", "a pill", "--count", "1", "--size", "32"])


def test_a_controlnet_trains_and_diffusers_names_its_parts_so(tmp_path, xl):
    out = run(tmp_path, xl, "control", "--mask-weight", "2")
    control = weights.load_control(out / "control")
    assert control.config.pooled == 24 and control.config.text == (0, 1, 2)
    Image.new("L", (32, 32), 255).save(tmp_path / "mask.png")
    call = ["--prompt", "a pill", "--count", "1", "--steps", "2", "--hint", str(tmp_path / "mask.png")]
    sample.main(["--run", str(out), *call, "--out", str(tmp_path / "drawn")])
    diffusers = pytest.importorskip("diffusers")
    theirs = diffusers.ControlNetModel.from_pretrained(out / "control")
    assert len(theirs.state_dict()) == len(control.state_dict())


def test_what_the_model_is_told_is_read_by_xl_alone(tmp_path, xl):
    call = ["--model", "tiny-sd", "--prompt", "a pill", "--count", "1", "--out", str(tmp_path / "a")]
    with pytest.raises(ValueError, match="sizes of the image are read by Stable Diffusion XL alone"):
        sample.main([*call, "--crop-offset", "3,4"])
    with pytest.raises(ValueError, match="a DiT samples squares, --size must be one number, found '64x32'"):
        sample.main(["--model", "tiny-dit", "--size", "64x32", "--out", str(tmp_path / "a")])
    with pytest.raises(ValueError, match="--target-size must be a number of pixels or WIDTHxHEIGHT, found '3,4'"):
        sample.main(["--model", str(xl), *call[2:], "--target-size", "3,4"])


# the six sizes


def set_of(*files, side=32, kind="resize"):
    """An ImageSet of files with these (height, width), resized and cropped to squares."""
    transform = Transform(side, kind=kind)
    images = [np.zeros((*file, 3), np.uint8) for file in files]
    pixels = np.stack([transform(image) for image in images])
    origins = np.array([transform.original(file) for file in files])
    names = [str(file) for file in files]
    return ImageSet(pixels, torch.zeros(len(files)).long(), ["a"], names, origins=origins)


def test_sizes_of_the_file_and_of_its_crop():
    sizes = image_sizes(set_of((100, 200), (64, 32)), [Variant()])[:, 0]
    assert sizes.tolist() == [[100, 200, 0, 16, 32, 32], [64, 32, 16, 0, 32, 32]]
    whole = set_of((32, 32))._replace(origins=None)
    assert image_sizes(whole, [Variant()])[0, 0].tolist() == [32, 32, 0, 0, 32, 32]


@pytest.mark.parametrize("variant", [Variant(h, v, d) for h in (0, 1) for v in (0, 1) for d in (0, 90, 180, 270)])
def test_what_is_mirrored_or_turned_is_so_in_the_numbers(variant):
    """The file itself mirrored and turned, then cropped, has the same sizes: a margin of 16 and one of 17."""
    file = np.zeros((32, 65, 3), np.uint8)
    turned = apply_variant(file, variant)
    expected = list(image_sizes(set_of(turned.shape[:2]), [Variant()])[0, 0])
    found = list(image_sizes(set_of(file.shape[:2]), [variant])[0, 0])
    assert found[:2] == expected[:2] and found[4:] == expected[4:]
    assert all(abs(a - b) <= 1 for a, b in zip(found, expected)) and max(found[2:4]) in (16, 17)


def test_the_left_margin_of_a_mirrored_image_is_its_right_one():
    (plain, mirrored), images = image_sizes(set_of((32, 65)), [Variant(), Variant(hflip=True)])[0], None
    assert plain.tolist() == [32, 65, 0, 16, 32, 32] and mirrored.tolist() == [32, 65, 0, 17, 32, 32] and not images


# LoRA files of others


def joined(folder):
    sd = weights.load_sd(folder)
    return TextConditioned(sd.unet, sd.text).eval()


@pytest.fixture(scope="module")
def learned(tmp_path_factory, xl):
    """A run with LoRA on the UNet and on both text encoders."""
    place = tmp_path_factory.mktemp("lora")
    specs = ["--adapter", "lora:rank=2,alpha=3", "--adapter", "text.lora:rank=2"]
    return run(place, xl, "text", *specs)


def rows(model):
    """What the model makes of two prompts, through both text encoders and the UNet."""
    tokenizer = tiny_xl(length=16, input_size=8).tokenizer
    x = torch.randn(2, 4, 8, 8, generator=torch.Generator().manual_seed(0))
    sizes = torch.tensor([[32, 32, 0, 0, 32, 32]]).expand(2, -1)
    tokens = torch.cat([tokenizer.tokens(["a pill", "a photo of a hole"]), sizes], dim=1)
    with torch.no_grad():
        return model(x, torch.tensor([3, 700]), tokens)


@pytest.mark.parametrize("layout", ["kohya", "lora-diffusers"])
def test_lora_files_there_and_back(tmp_path, xl, learned, layout):
    convert(learned, tmp_path / "l.safetensors", layout)
    expected = rows(weights.apply_adapters(joined(xl), [(str(learned / "adapter.safetensors"), 1.0)]))
    found = rows(weights.apply_adapters(joined(xl), [(str(tmp_path / "l.safetensors"), 1.0)]))
    torch.testing.assert_close(found, expected, atol=1e-4, rtol=1e-4)
    assert (expected - rows(joined(xl))).abs().max() > 1e-3


def test_kohyas_names_are_the_originals_and_diffusers_reads_them(tmp_path, xl, learned):
    convert(learned, tmp_path / "l.safetensors", "kohya")
    tensors, metadata = safe.read(tmp_path / "l.safetensors")
    assert "lora_unet_input_blocks_4_1_transformer_blocks_0_attn1_to_q.lora_down.weight" in tensors
    assert "lora_unet_middle_block_1_transformer_blocks_1_attn2_to_out_0.alpha" in tensors
    for number in (1, 2):
        assert f"lora_te{number}_text_model_encoder_layers_0_self_attn_q_proj.lora_up.weight" in tensors
    assert metadata["ss_base_model_version"] == "sdxl_base_v1-0"
    assert metadata["modelspec.architecture"] == "stable-diffusion-xl-v1-base/lora"
    assert (metadata["ss_network_dim"], json.loads(metadata["ss_network_args"])) == ("2", {})


@torch.no_grad()
@pytest.mark.parametrize("layout", ["kohya", "lora-diffusers"])
def test_diffusers_computes_the_same_with_our_file(tmp_path, xl, learned, layout):
    diffusers, _ = pytest.importorskip("diffusers"), pytest.importorskip("peft")
    pipeline = diffusers.StableDiffusionXLPipeline.from_pretrained(xl)
    convert(learned, tmp_path / "l.safetensors", layout)
    pipeline.load_lora_weights(str(tmp_path / "l.safetensors"))
    model = weights.apply_adapters(joined(xl), [(str(learned / "adapter.safetensors"), 1.0)])
    states, _, pooled, _ = pipeline.encode_prompt(["a pill", "a photo of a hole"], do_classifier_free_guidance=False)
    x = torch.randn(2, 4, 8, 8, generator=torch.Generator().manual_seed(0))
    added = {"text_embeds": pooled, "time_ids": torch.tensor([[32, 32, 0, 0, 32, 32]]).expand(2, -1)}
    expected = pipeline.unet(x, torch.tensor([3, 700]), states, added_cond_kwargs=added).sample
    torch.testing.assert_close(rows(model), expected, atol=1e-4, rtol=1e-4)


@torch.no_grad()
def test_we_compute_the_same_with_a_file_of_diffusers_and_of_peft(tmp_path, xl):
    diffusers, peft = pytest.importorskip("diffusers"), pytest.importorskip("peft")
    pipeline = diffusers.StableDiffusionXLPipeline.from_pretrained(xl)
    parts = {"unet": pipeline.unet, "text_encoder": pipeline.text_encoder, "text_encoder_2": pipeline.text_encoder_2}
    torch.manual_seed(0)
    for name, part in parts.items():
        targets = ["to_q", "to_v"] if name == "unet" else ["q_proj", "v_proj"]
        config = peft.LoraConfig(r=2, lora_alpha=2, target_modules=targets, init_lora_weights=False)
        parts[name] = peft.get_peft_model(part, config)
        parts[name].save_pretrained(tmp_path / "peft" / name)
    layers = {name: peft.get_peft_model_state_dict(part) for name, part in parts.items()}
    plain = {
        name: {key.removeprefix("base_model.model."): tensor for key, tensor in state.items()}
        for name, state in layers.items()
    }
    names = {"unet": "unet_lora_layers", "text_encoder": "text_encoder_lora_layers"}
    names["text_encoder_2"] = "text_encoder_2_lora_layers"
    pipeline.save_lora_weights(tmp_path / "theirs", **{names[part]: state for part, state in plain.items()})
    states, _, pooled, _ = pipeline.encode_prompt(["a pill", "a photo of a hole"], do_classifier_free_guidance=False)
    x = torch.randn(2, 4, 8, 8, generator=torch.Generator().manual_seed(0))
    added = {"text_embeds": pooled, "time_ids": torch.tensor([[32, 32, 0, 0, 32, 32]]).expand(2, -1)}
    expected = pipeline.unet(x, torch.tensor([3, 700]), states, added_cond_kwargs=added).sample
    for file in ("peft", "theirs"):
        found = rows(weights.apply_adapters(joined(xl), [(str(tmp_path / file), 1.0)]))
        torch.testing.assert_close(found, expected, atol=1e-4, rtol=1e-4)


def test_a_lora_of_xl_is_none_of_stable_diffusion_1_and_the_reverse(tmp_path, xl, learned):
    convert(learned, tmp_path / "xl.safetensors", "kohya")
    sd = weights.load_sd("tiny-sd")
    model = TextConditioned(sd.unet, sd.text)
    with pytest.raises(ValueError, match="it was made for Stable Diffusion XL, which has two text encoders"):
        weights.apply_adapters(model, [(str(tmp_path / "xl.safetensors"), 1.0)])
    stem = "lora_unet_down_blocks_0_attentions_0_transformer_blocks_0_attn2_to_k"
    first = {f"{stem}.lora_down.weight": torch.ones(2, 768), f"{stem}.lora_up.weight": torch.ones(320, 2)}
    save_file(first, tmp_path / "sd1.safetensors")
    with pytest.raises(ValueError, match="it was made for Stable Diffusion 1"):
        weights.apply_adapters(joined(xl), [(str(tmp_path / "sd1.safetensors"), 1.0)])
    with pytest.raises(ValueError, match="trained on another base"):
        weights.apply_adapters(model, [(str(learned / "adapter.safetensors"), 1.0)])

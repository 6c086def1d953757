"""Whole Stable Diffusion checkpoints: read from a folder or a single file, written as either, and told from others."""

from collections import OrderedDict

import pytest
import torch
from safetensors.torch import load_file, save_file

import weights
from sampling import Schedule
from unet import VAEConfig
from unet.sizes import TEXT_ENCODERS as TOWERS
from unet.sizes import UNETS
from unet.text.encoder import TextConfig, TextEncoder
from weights.convert import convert, main
from weights.layouts.exchange import LAYOUTS, file_names, spread
from weights.layouts.kinds import KINDS, empty, size_of

MODELS = ("unet", "text", "vae")
UNET, TEXT = "model.diffusion_model.", "cond_stage_model.transformer."


def equal(a, b):
    theirs = b.state_dict()
    return a.state_dict().keys() == theirs.keys() and all(torch.equal(v, theirs[k]) for k, v in a.state_dict().items())


def same(a, b):
    for kind in MODELS:
        assert equal(getattr(a, kind), getattr(b, kind)), kind
        assert getattr(a, kind).config == getattr(b, kind).config
    for field in ("prediction", "spacing", "offset"):
        assert getattr(a.schedule, field) == getattr(b.schedule, field)
    assert abs(a.schedule.final_alpha_bar - b.schedule.final_alpha_bar) < 1e-12
    assert torch.allclose(a.schedule.alpha_bar, b.schedule.alpha_bar, rtol=1e-9)
    texts = ["a photo of a crack", "something else"]
    assert torch.equal(a.tokenizer.tokens(texts), b.tokenizer.tokens(texts))


def test_single_file_and_folder_there_and_back(tmp_path, sd):
    pipeline, known = sd
    weights.save_sd(pipeline, tmp_path / "one.safetensors", "sd-compvis")
    pipeline.tokenizer.save(tmp_path / "words")
    one = weights.load_sd(tmp_path / "one.safetensors", tokenizer=tmp_path / "words", **known)
    side = 96 if one.schedule.prediction == "v" else 64  # what the published sizes have, the file holds no number
    assert one.unet.config.input_size == side
    one.unet.config = pipeline.unet.config
    same(one, pipeline)
    weights.save_sd(one, tmp_path / "folder", "sd-diffusers")
    folder = weights.load_sd(tmp_path / "folder")
    same(folder, pipeline)
    weights.save_sd(folder, tmp_path / "two.safetensors", "sd-compvis")
    first, second = load_file(tmp_path / "one.safetensors"), load_file(tmp_path / "two.safetensors")
    assert first.keys() == second.keys()
    assert all(torch.equal(first[name], second[name]) for name in first)


@pytest.mark.parametrize("kind", ["unet", "text"])
def test_one_component(tmp_path, sd1, kind):
    model = getattr(sd1[0], kind)
    weights.save_model(model, tmp_path / "w.safetensors")
    assert equal(weights.load(tmp_path / "w.safetensors"), model)
    assert weights.load(tmp_path / "w.safetensors", expect=kind).config == model.config
    convert(tmp_path / "w.safetensors", tmp_path / "w", {"unet": "unet-diffusers", "text": "text-transformers"}[kind])
    back = weights.load(tmp_path / "w")
    assert equal(back, model)
    assert back.config == model.config


@pytest.mark.parametrize(
    ("kind", "size", "layout", "tensors", "values"),
    [
        ("unet", UNETS["SD-1"], "unet-in-sd", 686, 859_520_964),
        ("unet", UNETS["SD-2"], "unet-in-sd", 686, 865_910_724),
        ("unet", UNETS["SD-2"], "unet-diffusers", 686, 865_910_724),
        ("vae", VAEConfig(), "vae-in-sd", 248, 83_653_863),
        ("text", TOWERS["CLIP-L"], "text-in-sd", 196, 123_060_480),
        ("text", TOWERS["OpenCLIP-H"], "text-transformers", 372, 340_387_840),
        # 23 blocks, q, k and v in one tensor each
        ("text", TOWERS["OpenCLIP-H"], "text-openclip-in-sd", 372 - 23 * 4, 340_387_840),
    ],
)
def test_counts_at_full_size(kind, size, layout, tensors, values):
    found = spread(empty(kind, size).state_dict(), LAYOUTS[layout], size_of(size))
    assert (len(found), sum(tensor.numel() for tensor in found.values())) == (tensors, values)
    assert KINDS[kind].measure(found) == size_of(size) or layout.startswith("text-openclip")


def test_what_the_parts_of_stable_diffusion_1_weigh():
    """UNet and VAE in float32, and all three in float16, as people know the files by."""
    configs = {"unet": UNETS["SD-1"], "text": TOWERS["CLIP-L"], "vae": VAEConfig()}
    size = {
        kind: sum(tensor.nbytes for tensor in empty(kind, config).state_dict().values())
        for kind, config in configs.items()
    }
    assert (round(size["unet"] / 2**30, 3), round(size["vae"] / 2**20, 1)) == (3.202, 319.1)
    assert round(sum(size.values()) / 2 / 10**9, 3) == 2.132


@pytest.mark.parametrize(
    ("ours", "theirs"),
    [
        ("time_embed.2.bias", "time_embed.2.bias"),
        ("conv_in.weight", "input_blocks.0.0.weight"),
        ("down.0.resnets.1.norm1.weight", "input_blocks.2.0.in_layers.0.weight"),
        ("down.0.downsample.weight", "input_blocks.3.0.op.weight"),
        ("down.2.attentions.0.proj_in.weight", "input_blocks.7.1.proj_in.weight"),
        ("down.3.resnets.1.conv2.bias", "input_blocks.11.0.out_layers.3.bias"),
        ("mid.attentions.0.norm.weight", "middle_block.1.norm.weight"),
        ("mid.resnets.1.time_emb_proj.weight", "middle_block.2.emb_layers.1.weight"),
        ("up.0.upsample.weight", "output_blocks.2.1.conv.weight"),
        ("up.1.upsample.weight", "output_blocks.5.2.conv.weight"),
        ("up.2.resnets.2.shortcut.weight", "output_blocks.8.0.skip_connection.weight"),
        (
            "up.3.attentions.2.transformer_blocks.0.attn2.to_k.weight",
            "output_blocks.11.1.transformer_blocks.0.attn2.to_k.weight",
        ),
        ("norm_out.weight", "out.0.weight"),
        ("conv_out.bias", "out.2.bias"),
    ],
)
def test_names_of_the_original_unet(ours, theirs):
    assert file_names(ours, LAYOUTS["unet-in-sd"], size_of(UNETS["SD-1"])) == [UNET + theirs]


def test_rows_of_other_unets():
    """One residual block a level and transformers on all: a level is two rows, and doubling is always in slot 2."""
    size = size_of(UNETS["UNet-T"])
    assert file_names("up.0.upsample.bias", LAYOUTS["unet-in-sd"], size) == [UNET + "output_blocks.1.2.conv.bias"]
    found = spread(empty("unet", UNETS["UNet-T"]).state_dict(), LAYOUTS["unet-in-sd"], size)
    assert KINDS["unet"].measure(found) == size


def test_a_lightning_checkpoint(read_one, sd1, single1):
    tensors, words = single1
    schedule = {"betas": torch.zeros(1000), "alphas_cumprod": Schedule.scaled_linear().alpha_bar.float()}
    content = {"epoch": 3, "state_dict": OrderedDict(tensors | schedule), "optimizer_states": [{}]}
    assert equal(read_one(content, words, sd1[1]).unet, sd1[0].unet)


def test_all_parts_share_one_map_of_the_file(tmp_path, sd1):
    weights.save_sd(sd1[0], tmp_path / "sd.safetensors", "sd-compvis")
    sd1[0].tokenizer.save(tmp_path / "words")
    found = weights.load_sd(tmp_path / "sd.safetensors", tokenizer=tmp_path / "words", **sd1[1])
    places = [parameter.data_ptr() for kind in MODELS for parameter in getattr(found, kind).parameters()]
    assert max(places) - min(places) < (tmp_path / "sd.safetensors").stat().st_size


def test_averaged_or_raw(read_one, sd1, single1, capsys):
    tensors, words = single1
    raw = {name: tensor for name, tensor in tensors.items() if name.startswith(UNET)}
    twins = {f"model_ema.{name.removeprefix('model.').replace('.', '')}": 2 * raw[name] for name in raw}
    assert "model_ema.diffusion_modelinput_blocks00weight" in twins
    full = tensors | twins | {"model_ema.decay": torch.tensor(0.9999), "model_ema.num_updates": torch.tensor(7)}
    assert torch.equal(read_one(full, words, sd1[1]).unet.conv_in.weight, 2 * sd1[0].unet.conv_in.weight)
    assert "averaged weights of the UNet, ema=False takes the others" in capsys.readouterr().out
    assert equal(read_one(full, words, sd1[1], ema=False).unet, sd1[0].unet)
    assert "raw weights of the UNet" in capsys.readouterr().out
    del full["model_ema.diffusion_modelinput_blocks00weight"]
    with pytest.raises(ValueError, match="expected 686 averaged weights of the UNet, found 685"):
        read_one(full, words, sd1[1])


def clip(tensors):
    """The text encoder of a single file under transformers' own names."""
    return {name.removeprefix(TEXT): tensor for name, tensor in tensors.items() if name.startswith(TEXT)}


@pytest.mark.parametrize(
    ("pattern", "position_ids"),
    [
        (("text_model.", "text_model."), torch.arange(77)[None]),
        (("text_model.", ""), torch.arange(77)[None].half()),
        (("text_model.", "text_model.text_model."), torch.arange(77.0)[None] + 0.25),
    ],
)
def test_spellings_of_the_text_tower(tmp_path, sd1, single1, pattern, position_ids):
    tensors = clip(single1[0]) | {"text_model.embeddings.position_ids": position_ids}
    save_file({name.replace(*pattern): tensor for name, tensor in tensors.items()}, tmp_path / "w")
    assert equal(weights.load(tmp_path / "w", heads=4), sd1[0].text)


def test_a_tower_inside_a_whole_clip(tmp_path, sd1, single1):
    more = {
        "logit_scale": torch.ones(()),
        "text_projection.weight": torch.ones(3, 32),
        "vision_model.encoder.layers.7.mlp.fc1.bias": torch.ones(3),
        "visual_projection.weight": torch.ones(3, 3),
    }
    save_file(clip(single1[0]) | more, tmp_path / "w")
    assert equal(weights.load(tmp_path / "w", heads=4), sd1[0].text)


def test_a_single_file_without_text_model(read_one, sd1, single1):
    tensors = {name.replace(".text_model.", "."): tensor for name, tensor in single1[0].items()}
    assert equal(read_one(tensors, single1[1], sd1[1]).text, sd1[0].text)


def test_the_tower_of_stable_diffusion_2(read_one, sd2, single2):
    tensors, words = single2
    before = "cond_stage_model.model."
    assert tensors[before + "transformer.resblocks.0.attn.in_proj_weight"].shape == (96, 32)
    assert tensors[before + "positional_embedding"].shape == (77, 32)
    last, copy = (tensors[f"{before}transformer.resblocks.{number}.ln_1.weight"] for number in (2, 3))
    assert torch.equal(last, copy)  # a fourth block, which never runs
    assert {before + "text_projection", before + "logit_scale"} < tensors.keys()
    other = tensors | {name: tensor + 1 for name, tensor in tensors.items() if ".resblocks.3." in name}
    other = {name.replace(before, "conditioner.embedders.0.model."): tensor for name, tensor in other.items()}
    other |= {"conditioner.embedders.0.model.attn_mask": torch.zeros(77, 77)}
    for found in (tensors, other):
        pipeline = read_one(found, words, sd2[1], prediction="v")
        assert equal(pipeline.text, sd2[0].text)
        assert pipeline.text.config.activation == "gelu"
    name = before + "transformer.resblocks.1.attn.in_proj_bias"
    with pytest.raises(ValueError, match=r"3 of another shape \(.*in_proj_bias expected \[32\], found \[97\]"):
        read_one(tensors | {name: torch.zeros(97)}, words, sd2[1], prediction="v")


def test_a_measured_scaling_factor(read_one, sd1, single1):
    def scale(value):
        tensors = single1[0] | {"scale_factor": torch.tensor(value)}
        return read_one(tensors, single1[1], sd1[1]).vae.config.scaling_factor

    assert scale(0.75) == 0.75
    assert scale(0.18212890625) == 0.18215  # as float16 rounds it


def test_a_missing_tensor_is_an_error(read_one, sd1, single1):
    tensors = dict(single1[0])
    del tensors[UNET + "input_blocks.4.1.transformer_blocks.0.attn2.to_q.weight"]
    with pytest.raises(ValueError, match="expected 686 tensors of our unet, found 1 missing"):
        read_one(tensors, single1[1], sd1[1])
    with pytest.raises(ValueError, match=r"expected 52 tensors of our text, found 1 unknown \(cond_stage_model.odd"):
        read_one(single1[0] | {"cond_stage_model.odd": torch.ones(1)}, single1[1], sd1[1])


def test_the_tokenizer_of_a_single_file(read_one, tmp_path, monkeypatch, sd2, single2):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    tensors, words = single2
    with pytest.raises(ValueError, match="run `python -m weights.download clip-tokenizer`, or give tokenizer="):
        read_one(tensors, None, sd2[1], prediction="v")
    config = words / "tokenizer_config.json"
    monkeypatch.undo()
    kept = config.read_text()
    config.write_text(kept.replace('"pad_token": "!"', '"pad_token": "<|endoftext|>"'))
    found = read_one(tensors, words, sd2[1], prediction="v").tokenizer
    config.write_text(kept)
    assert found.pad_token == "!"


@pytest.mark.parametrize(
    ("config", "message"),
    [
        (TextConfig(9, width=32, layers=3, heads=4), "a tokenizer of .* tokens and rows of 77, the text encoder has 9"),
        (TextConfig(600, width=32, layers=1, heads=4, max_length=8), "the text encoder has 600 tokens and 8 positions"),
        (TextConfig(600, width=16, layers=1, heads=4), "reads text states of 32, the text encoder makes them of 16"),
        (TextConfig(600, width=32, layers=2, heads=4, skip=1), "this text encoder skips 1: load it with skip=0"),
    ],
)
@pytest.mark.parametrize("layout", ["sd-diffusers", "sd-compvis"])
def test_parts_that_do_not_fit_each_other(tmp_path, sd1, config, message, layout):
    with pytest.raises(ValueError, match=message):
        weights.save_sd(sd1[0]._replace(text=TextEncoder(config)), tmp_path / "w.safetensors", layout)
    assert not (tmp_path / "w.safetensors" / "model_index.json").exists()


def test_what_one_file_cannot_hold(tmp_path, sd1):
    with pytest.raises(ValueError, match="unknown layout 'sd', the layouts are sd-diffusers, sd-compvis"):
        weights.save_sd(sd1[0], tmp_path / "w", "sd")
    with pytest.raises(ValueError, match="expected a file name ending in .safetensors"):
        weights.save_sd(sd1[0], tmp_path / "w.ckpt", "sd-compvis")
    with pytest.raises(ValueError, match="sd-compvis stands for Stable Diffusion's noise schedule, found another"):
        weights.save_sd(sd1[0]._replace(schedule=Schedule.linear()), tmp_path / "w.safetensors", "sd-compvis")


def test_command_line(tmp_path, sd1, capsys):
    weights.save_sd(sd1[0], tmp_path / "folder", "sd-diffusers")
    main([str(tmp_path / "folder"), str(tmp_path / "sd.safetensors"), "--layout", "sd-compvis", "--dtype", "float16"])
    found = load_file(tmp_path / "sd.safetensors")
    assert found.pop(TEXT + "text_model.embeddings.position_ids").dtype == torch.int64
    assert {tensor.dtype for tensor in found.values()} == {torch.float16}
    main([str(tmp_path / "folder"), str(tmp_path / "v"), "--layout", "sd-diffusers", "--prediction", "v"])
    assert weights.load_sd(tmp_path / "v").schedule.prediction == "v"
    with pytest.raises(SystemExit):
        main([str(tmp_path / "folder"), str(tmp_path / "x"), "--layout", "native", "--prediction", "v"])
    assert "--prediction belongs to sd-diffusers and sd-compvis" in capsys.readouterr().err

"""Stable Diffusion XL: its published sizes, its files there and back, and diffusers' pipeline on the same folder."""

import json
from dataclasses import replace

import pytest
import torch
from safetensors.torch import load_file, save_file

import weights
from sampling import batched_cfg, sample_latents
from tests.fakes import tiny_xl
from unet import UNet, VAEConfig, encode_prompts
from unet.row import nothing, sized, split_row
from unet.sizes import TEXT_ENCODERS, UNETS
from unet.text.pair import states_and_pooled
from weights.adapter_files.embeddings import add_tokens
from weights.convert import convert
from weights.layouts.diffusers_json import text_json, unet_json
from weights.layouts.exchange import LAYOUTS, spread
from weights.layouts.kinds import KINDS, empty, size_of

FULL = {"unet": UNETS["SDXL"], "first": TEXT_ENCODERS["CLIP-L-XL"], "second": TEXT_ENCODERS["OpenCLIP-bigG"]}
KNOWN = {"unet": {"heads": (2, 2, 4), "groups": 8}, "text": {"heads": 4}, "vae": {"groups": 8}}


@pytest.fixture(scope="module")
def xl():
    return tiny_xl()


@pytest.fixture(scope="module")
def folder(xl, tmp_path_factory):
    place = tmp_path_factory.mktemp("xl")
    weights.save_sd(xl, place, "sd-diffusers")
    return place


@pytest.fixture(scope="module")
def single(xl, tmp_path_factory):
    place = tmp_path_factory.mktemp("xl-one")
    weights.save_sd(xl, place / "xl.safetensors", "sd-compvis")
    xl.tokenizer.save(place / "words")
    return place


def states(sd):
    return {f"{kind}.{n}": t for kind in ("unet", "text", "vae") for n, t in getattr(sd, kind).state_dict().items()}


def same(a, b):
    ours, theirs = states(a), states(b)
    assert ours.keys() == theirs.keys() and all(torch.equal(tensor, theirs[name]) for name, tensor in ours.items())
    assert (a.unet.config, a.text.config, a.vae.config) == (b.unet.config, b.text.config, b.vae.config)
    assert torch.equal(a.tokenizer.tokens(["a hole!", ""]), b.tokenizer.tokens(["a hole!", ""]))


# sizes


@pytest.mark.parametrize(
    ("kind", "config", "tensors", "values"),
    [
        ("unet", UNETS["SDXL"], 1680, 2_567_463_684),
        ("unet", UNETS["SDXL-inpaint"], 1680, 2_567_478_084),
        ("text", TEXT_ENCODERS["CLIP-L-XL"], 196, 123_060_480),
        ("text", TEXT_ENCODERS["OpenCLIP-bigG"], 517, 694_659_840),
        ("vae", VAEConfig(), 248, 83_653_863),
    ],
)
def test_counts(kind, config, tensors, values):
    state = empty(kind, config).state_dict()
    assert (len(state), sum(tensor.numel() for tensor in state.values())) == (tensors, values)


def test_counts_of_the_parts_of_the_unet():
    unet = empty("unet", UNETS["SDXL"])
    parts = {
        "conv_in": 11_840,
        "time_embed": 2_050_560,
        "vector_embed": 5_245_440,
        "down.0": 5_432_000,
        "down.1": 60_105_600,
        "down.2": 757_404_160,
        "mid": 413_117_440,
        "up.0": 1_206_568_960,
        "up.1": 106_343_680,
        "up.2": 11_171_840,
        "norm_out": 640,
        "conv_out": 11_524,
    }
    assert {name: sum(p.numel() for p in unet.get_submodule(name).parameters()) for name in parts} == parts


def test_the_bytes_of_the_published_file():
    """sd_xl_base_1.0.safetensors: all in float16, positions and scale too, and a header of 402,436 bytes."""
    unet, first, second = (empty("unet" if kind == "unet" else "text", config) for kind, config in FULL.items())
    parts = [
        spread(unet.state_dict(), LAYOUTS["unet-in-sd"], size_of(unet.config)),
        spread(first.state_dict(), LAYOUTS["text-transformers"], 12),
        spread(second.state_dict(), LAYOUTS["text-openclip"], 32),
        spread(empty("vae", VAEConfig()).state_dict(), LAYOUTS["vae-in-sd"], 4),
        {"position_ids": torch.empty(77), "logit_scale": torch.empty(())},
    ]
    assert 8 + 402_436 + sum(2 * tensor.numel() for part in parts for tensor in part.values()) == 6_938_078_334


def test_the_names_of_the_single_file_are_a_bijection():
    config = UNETS["SDXL"]
    ours = empty("unet", config).state_dict()
    found = spread(ours, LAYOUTS["unet-in-sd"], size_of(config))
    assert len(found) == len(ours) == 1680 and KINDS["unet"].measure(found) == size_of(config)
    prefix = "model.diffusion_model."
    shapes = {name.removeprefix(prefix): tuple(tensor.shape) for name, tensor in found.items()}
    assert shapes["label_emb.0.0.weight"] == (1280, 2816) and shapes["label_emb.0.2.weight"] == (1280, 1280)
    for there in (
        "input_blocks.6.0.op.weight",
        "input_blocks.8.1.transformer_blocks.9.ff.net.2.weight",
        "middle_block.1.transformer_blocks.9.attn2.to_k.weight",
        "output_blocks.2.2.conv.weight",
        "output_blocks.5.2.conv.weight",
        "output_blocks.5.1.transformer_blocks.1.attn1.to_q.weight",
        "output_blocks.8.0.skip_connection.weight",
    ):
        assert there in shapes, there
    assert not any(name.startswith(("input_blocks.1.1.", "output_blocks.6.1.")) for name in shapes)


def test_full_size_names_are_those_of_diffusers():
    diffusers = pytest.importorskip("diffusers")
    transformers = pytest.importorskip("transformers")
    single_file = pytest.importorskip("diffusers.loaders.single_file_utils")
    config = UNETS["SDXL"]
    with torch.device("meta"):
        theirs = diffusers.UNet2DConditionModel(**{k: v for k, v in unet_json(config).items() if k[0] != "_"})
        towers = [
            transformers.CLIPTextModel(transformers.CLIPTextConfig(**text_json(FULL["first"]))),
            transformers.CLIPTextModelWithProjection(transformers.CLIPTextConfig(**text_json(FULL["second"]))),
        ]
    state = {name: tensor.shape for name, tensor in theirs.state_dict().items()}
    ours = empty("unet", config).state_dict()
    found = spread(ours, LAYOUTS["unet-diffusers"], size_of(config))
    assert {name: tensor.shape for name, tensor in found.items()} == state
    single = spread(ours, LAYOUTS["unet-in-sd"], size_of(config))
    converted = single_file.convert_ldm_unet_checkpoint(dict(single), dict(theirs.config))
    assert {name: tensor.shape for name, tensor in converted.items()} == state
    for kind, tower in zip(("first", "second"), towers):
        text = spread(empty("text", FULL[kind]).state_dict(), LAYOUTS["text-transformers"], FULL[kind].layers)
        names = {
            n.removeprefix("text_model."): t.shape for n, t in tower.state_dict().items() if "position_ids" not in n
        }
        assert {name.removeprefix("text_model."): tensor.shape for name, tensor in text.items()} == names


# files


def test_single_file_and_folder_there_and_back(tmp_path, xl, folder, single):
    one = weights.load_sd(single / "xl.safetensors", tokenizer=single / "words", **KNOWN)
    assert one.unet.config.input_size == 64 and one.schedule.prediction == "eps"  # the file holds no side
    one.unet.config = xl.unet.config
    same(one, xl)
    same(weights.load_sd(folder), xl)
    assert weights.is_sd(folder) and weights.is_sd(single / "xl.safetensors")
    convert(folder, tmp_path / "two.safetensors", "sd-compvis")
    first, second = (load_file(path) for path in (single / "xl.safetensors", tmp_path / "two.safetensors"))
    assert first.keys() == second.keys() and all(torch.equal(first[name], second[name]) for name in first)
    index = json.loads((folder / "model_index.json").read_text())
    assert index["_class_name"] == "StableDiffusionXLPipeline" and index["force_zeros_for_empty_prompt"]


def test_the_second_tower_is_stored_as_openclip_stores_it(xl, single):
    tensors = load_file(single / "xl.safetensors")
    projection = tensors["conditioner.embedders.1.model.text_projection"]
    assert torch.equal(projection, xl.text.second.text_projection.weight.T)
    assert tensors["conditioner.embedders.1.model.transformer.resblocks.2.attn.in_proj_weight"].shape == (96, 32)
    assert tensors["conditioner.embedders.0.transformer.text_model.embeddings.position_ids"].dtype == torch.int64


def test_one_part_alone(folder, xl):
    assert weights.load(folder, expect="unet").config == xl.unet.config
    second = weights.load(folder / "text_encoder_2")
    assert (second.config.projection, second.config.skip, second.config.norm) == (24, 0, True)


def test_the_inpainting_unet(tmp_path, xl):
    inpaint = UNet(replace(xl.unet.config, in_channels=9))
    weights.save_sd(xl._replace(unet=inpaint), tmp_path, "sd-diffusers")
    assert json.loads((tmp_path / "model_index.json").read_text())["_class_name"] == "StableDiffusionXLInpaintPipeline"
    with pytest.raises(ValueError, match="an inpainting model: 9 input channels, expected 4"):
        weights.load_sd(tmp_path)
    assert weights.load_sd(tmp_path, unet={"in_channels": 9}).unet.config.in_channels == 9


def test_float16_leaves_the_autoencoder_in_float32(folder, single, tmp_path):
    half = weights.load_sd(folder, dtype=torch.float16)
    assert half.unet.conv_in.weight.dtype == torch.float16 and half.vae.quant_conv.weight.dtype == torch.float32
    one = weights.load_sd(single / "xl.safetensors", tokenizer=single / "words", dtype=torch.float16, **KNOWN)
    assert one.vae.quant_conv.weight.dtype == torch.float32
    assert half.vae.images(torch.zeros(1, 4, 4, 4, dtype=torch.float16)).dtype == torch.float32


# refusals


def test_the_refiner_is_refused_by_name(single, tmp_path):
    tensors = load_file(single / "xl.safetensors")
    wide = {n: torch.zeros(len(t), 1280) if n.endswith("attn2.to_k.weight") else t for n, t in tensors.items()}
    save_file(wide, tmp_path / "refiner.safetensors")
    with pytest.raises(ValueError, match=r"Stable Diffusion XL \(refiner\), its UNet reads text states 1280 wide"):
        weights.load_sd(tmp_path / "refiner.safetensors", **KNOWN)


@pytest.mark.parametrize("name", ["model.diffusion_model.joint_blocks.0.x_block.attn.qkv.weight", "double_blocks.0.x"])
def test_stable_diffusion_3_and_flux_are_refused(tmp_path, name):
    save_file({name: torch.zeros(1)}, tmp_path / "other.safetensors")
    with pytest.raises(ValueError, match="found a (Stable Diffusion 3|Flux) transformer"):
        weights.load_sd(tmp_path / "other.safetensors")


def test_a_file_without_one_of_its_text_encoders(single, tmp_path):
    tensors = load_file(single / "xl.safetensors")
    save_file({n: t for n, t in tensors.items() if ".embedders.0." not in n}, tmp_path / "xl.safetensors")
    with pytest.raises(ValueError, match="expected both text encoders of Stable Diffusion XL, found none"):
        weights.load_sd(tmp_path / "xl.safetensors", **KNOWN)


# the whole of it against diffusers


@pytest.fixture(scope="module")
def theirs(folder):
    pytest.importorskip("transformers")
    return pytest.importorskip("diffusers").StableDiffusionXLPipeline.from_pretrained(folder)


@torch.no_grad()
def test_texts_are_encoded_as_in_diffusers(xl, theirs):
    prompts = ["a photo of a hazelnut!", "a pill"]
    expected, _, pooled, _ = theirs.encode_prompt(prompts, do_classifier_free_guidance=False)
    row = encode_prompts(xl.text, xl.tokenizer, prompts)
    assert (row[:, :-24].unflatten(1, (77, 48)) - expected).abs().max() < 1e-5
    assert (row[:, -24:] - pooled).abs().max() < 1e-5
    assert torch.equal(xl.text(xl.tokenizer.tokens(prompts)), row)  # as a text encoder that trains makes it
    assert not xl.text(xl.tokenizer.tokens(["", "a"]))[0].any()


@torch.no_grad()
@pytest.mark.parametrize("negative", [None, "a hole"])
def test_the_pipeline_draws_the_same(xl, theirs, negative, monkeypatch):
    """Guided, in six steps of DDIM, not square, with sizes of its own: within two of 255."""
    diffusers = pytest.importorskip("diffusers")
    theirs.scheduler = diffusers.DDIMScheduler.from_config(theirs.scheduler.config)
    theirs.set_progress_bar_config(disable=True)
    height, width, sizes = 64, 96, (50, 70, 3, 5, 64, 96)
    shape = xl.latent_shape(height, width)
    noise = torch.randn(1, *shape, generator=torch.Generator().manual_seed(0))
    out = theirs(
        "a photo of a pill",
        negative_prompt=negative,
        height=height,
        width=width,
        original_size=sizes[:2],
        crops_coords_top_left=sizes[2:4],
        target_size=sizes[4:],
        num_inference_steps=6,
        guidance_scale=5.0,
        latents=noise,
        output_type="np",
    ).images
    rows = encode_prompts(xl.text, xl.tokenizer, ["a photo of a pill", negative or ""])
    null = rows[1:] if negative else nothing(rows[1:])
    denoiser = batched_cfg(xl.unet, sized(rows[:1], sizes), null, 5.0)

    monkeypatch.setattr("sampling.latents.sample_noise", lambda seed, indices: lambda x: noise)
    z = sample_latents(denoiser, range(1), shape, xl.schedule, "ddim", 6)
    image = (xl.vae.images(z) / 2 + 0.5).clamp(0, 1)[0].permute(1, 2, 0).numpy()
    assert image.std() > 0.01 and abs(image - out[0]).max() <= 2 / 255


@torch.no_grad()
def test_pooled_text_is_that_of_the_end_and_not_of_a_new_word_whose_id_is_larger():
    sd = tiny_xl()
    encoder, tokenizer = sd.text.second, sd.tokenizer.second
    add_tokens(encoder, torch.randn(1, 32))
    (new,) = sd.tokenizer.add("sks")
    ids = torch.tensor([tokenizer.row(tokenizer.encode("a sks pill"))])
    h = encoder.embed(ids)
    for layer in encoder.layers:
        h = layer(h)
    end = ids[0].tolist().index(tokenizer.end)
    assert new > tokenizer.end and ids[0].argmax() < end
    expected = encoder.text_projection(encoder.final_norm(h)[0, end])
    assert torch.allclose(states_and_pooled(encoder, ids)[1][0], expected, atol=1e-5)


@torch.no_grad()
def test_a_controlnet_of_diffusers_computes_the_same(tmp_path, xl, theirs):
    diffusers = pytest.importorskip("diffusers")
    torch.manual_seed(0)
    control = diffusers.ControlNetModel.from_unet(theirs.unet, conditioning_embedding_out_channels=(8, 8, 16))
    for parameter in control.parameters():
        parameter.normal_(std=0.1)
    control.save_pretrained(tmp_path)
    ours, generator = weights.load_control(tmp_path), torch.Generator().manual_seed(0)
    x, t, hint = torch.randn(2, 4, 16, 8, generator=generator), torch.tensor([3, 700]), torch.rand(2, 3, 64, 32)
    row = sized(encode_prompts(xl.text, xl.tokenizer, ["a pill", "a hole"]), (64, 32, 0, 0, 64, 32))
    states, pooled, sizes = split_row(row, 48, 24)
    added = {"text_embeds": pooled, "time_ids": sizes}
    down, mid = control(x, t, states, hint, added_cond_kwargs=added, return_dict=False)
    for found, expected in zip(ours(x, t, row, hint), [*down, mid], strict=True):
        torch.testing.assert_close(found, expected, atol=1e-4, rtol=1e-4)

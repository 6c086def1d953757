"""What is no whole Stable Diffusion 1 or 2 from text, or is broken: each is told in one sentence what it is."""

import json

import pytest
import torch
from safetensors.torch import save_file

import weights

UNET = "model.diffusion_model."


def entry(channels):
    return {UNET + "input_blocks.0.0.weight": torch.zeros(32, channels, 3, 3)}


def context(width):
    return {f"{UNET}input_blocks.4.1.transformer_blocks.0.attn2.to_k.weight": torch.zeros(64, width)}


@pytest.mark.parametrize(
    ("more", "message"),
    [
        (entry(9), "an inpainting model: 9 input channels, expected 4; in_channels=9 loads it all the same"),
        (entry(8), "an InstructPix2Pix model: 8 input channels, expected 4"),
        (entry(5), "a depth-to-image model: 5 input channels, expected 4"),
        (entry(7), "the x4 upscaler: 7 input channels, expected 4"),
        (entry(7) | {UNET + "label_emb.weight": torch.zeros(3, 3)}, "the x4 upscaler .* and a class embedding"),
        ({UNET + "label_emb.0.0.weight": torch.zeros(3, 3)}, "conditioned on a class or an image"),
        ({"depth_model.x": torch.zeros(1)}, "Stable Diffusion 2's depth-to-image model"),
        ({"conditioner.embedders.1.model.ln_final.weight": torch.zeros(1)}, "expected both text encoders of .* XL"),
        ({"control_model.input_hint_block.0.weight": torch.zeros(1)}, "Stable Diffusion beside a ControlNet"),
        ({"cc_projection.weight": torch.zeros(1)}, "Zero123"),
        ({"embedder.model.x": torch.zeros(1)}, "unCLIP"),
        ({UNET + "time_embed.cond_proj.weight": torch.zeros(1)}, "a latent consistency model"),
    ],
)
def test_other_members_of_the_family(read_one, sd1, single1, more, message):
    with pytest.raises(ValueError, match=message):
        read_one(single1[0] | more, single1[1], sd1[1])


def test_the_refiner_by_the_width_of_its_text(read_one, single1, sd1):
    width = 1280
    first = f"{UNET}input_blocks.1.1.transformer_blocks.0.attn2.to_k.weight"
    tensors = context(width) | {name: tensor for name, tensor in single1[0].items() if name != first}
    tensors |= {name: torch.zeros(64, width) for name in tensors if name.endswith("attn2.to_k.weight")}
    with pytest.raises(
        ValueError, match=r"Stable Diffusion XL \(refiner\), its UNet reads text states 1280 wide; .*2048 \(XL base"
    ):
        read_one(tensors, single1[1], sd1[1])


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("model.diffusion_model.joint_blocks.0.x", "found a Stable Diffusion 3 transformer"),
        ("double_blocks.0.img_attn.qkv.weight", "found a Flux transformer"),
        ("control_model.input_hint_block.0.weight", "found a ControlNet"),
        ("lora_unet_down_blocks_0_attentions_0_proj_in.lora_up.weight", "found a LoRA file"),
        ("emb_params", "found a textual inversion embedding"),
        ("decoder.mid.block_1.norm1.weight", "found a VAE"),
        ("cond_stage_model.model.ln_final.weight", "found a text encoder"),
    ],
)
def test_files_that_are_no_whole_stable_diffusion(tmp_path, name, message):
    save_file({name: torch.zeros(1)}, tmp_path / "w.safetensors")
    with pytest.raises(ValueError, match=f"expected a whole Stable Diffusion, {message}"):
        weights.load_sd(tmp_path / "w.safetensors")


def test_damaged_files(read_one, tmp_path, sd1, single1):
    path, tensors = tmp_path / "sd.safetensors", dict(single1[0])
    weights.save_sd(sd1[0], path, "sd-compvis")
    path.write_bytes(path.read_bytes()[:-1000])
    with pytest.raises(ValueError, match="the download is incomplete, delete the file and fetch it again"):
        weights.load_sd(path)
    path.write_text("version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 4265146304\n")
    with pytest.raises(ValueError, match="a Git LFS pointer of .* expected the 4,265,146,304 bytes of weights"):
        weights.load_sd(path)
    tensors[UNET + "out.2.bias"] = torch.tensor([0.0, float("nan"), 0.0, 0.0])
    with pytest.raises(ValueError, match=r"NaN or infinity in 1 tensors \(conv_out.bias\)"):
        read_one(tensors, single1[1], sd1[1])


def test_a_folder_that_lacks_a_variant_or_a_part(tmp_path, sd1):
    weights.save_sd(sd1[0], tmp_path, "sd-diffusers")
    with pytest.warns(UserWarning, match="no variant 'fp16', reading diffusion_pytorch_model.safetensors"):
        assert torch.equal(weights.load_sd(tmp_path, variant="fp16").unet.conv_in.bias, sd1[0].unet.conv_in.bias)
    (tmp_path / "scheduler" / "scheduler_config.json").unlink()
    with pytest.raises(ValueError, match="expected scheduler/scheduler_config.json, found no such file"):
        weights.load_sd(tmp_path)
    (tmp_path / "text_encoder" / "model.safetensors").unlink()
    with pytest.raises(ValueError, match="text_encoder: expected diffusion_pytorch_model.safetensors, model"):
        weights.load_sd(tmp_path)


def test_a_file_without_its_vae(read_one, sd1, single1):
    tensors = {name: tensor for name, tensor in single1[0].items() if not name.startswith("first_stage_model")}
    with pytest.raises(ValueError, match="expected a whole Stable Diffusion, found no VAE in it"):
        read_one(tensors, single1[1], sd1[1])


def test_inpainting_is_loaded_when_asked_for(read_one, tmp_path, sd1, single1):
    known = sd1[1] | {"unet": sd1[1]["unet"] | {"in_channels": 9}}
    pipeline = read_one(single1[0] | entry(9), single1[1], known)
    assert pipeline.unet.config.in_channels == 9
    weights.save_sd(pipeline, tmp_path / "folder", "sd-diffusers")
    index = json.loads((tmp_path / "folder" / "model_index.json").read_text())
    assert index["_class_name"] == "StableDiffusionInpaintPipeline"
    with pytest.raises(ValueError, match="an inpainting model: 9 input channels, expected 4"):
        weights.load_sd(tmp_path / "folder")
    assert weights.load_sd(tmp_path / "folder", unet={"in_channels": 9}).unet.config == pipeline.unet.config
    with pytest.raises(ValueError, match="a text-to-image model: 4 input channels, expected 9"):
        read_one(single1[0], single1[1], known)


def test_folders_that_are_refused(tmp_path, sd1):
    with pytest.raises(ValueError, match="found no model_index.json"):
        weights.load_sd(tmp_path)
    weights.save_sd(sd1[0], tmp_path, "sd-diffusers")
    with pytest.raises(ValueError, match="weights.load_sd reads a whole Stable Diffusion"):
        weights.load(tmp_path)
    with pytest.raises(ValueError, match="a folder has a tokenizer of its own"):
        weights.load_sd(tmp_path, tokenizer="words")
    index, config = tmp_path / "model_index.json", tmp_path / "unet" / "config.json"
    kept = index.read_text()
    index.write_text(kept.replace("StableDiffusionPipeline", "StableDiffusion3Pipeline"))
    with pytest.raises(ValueError, match="found StableDiffusion3Pipeline, another kind of pipeline"):
        weights.load_sd(tmp_path)
    index.write_text(kept)
    config.write_text(config.read_text().replace('"freq_shift": 0', '"freq_shift": 1'))
    with pytest.raises(ValueError, match="expected freq_shift 0 in its config.json, found 1"):
        weights.load_sd(tmp_path)

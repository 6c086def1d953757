"""From a file to a model: kinds, configs, names, and refusals that say what a file is."""

import argparse
import json
import re
import sys
from dataclasses import asdict

import pytest
import torch
from safetensors.torch import save_file

import weights
from dit import DiT, DiTConfig
from weights.convert import export, export_pipeline
from weights.layouts.detect import detect
from weights.layouts.exchange import LAYOUTS, spread
from weights.layouts.kinds import empty


def equal(a, b):
    theirs = b.state_dict()
    return a.state_dict().keys() == theirs.keys() and all(torch.equal(v, theirs[k]) for k, v in a.state_dict().items())


def test_native_round_trip(tmp_path, tiny_dit, tiny_vae):
    for model in (tiny_dit, tiny_vae):
        weights.save_model(model, tmp_path / "w.safetensors", card={"data": "none"})
        back = weights.load(tmp_path / "w.safetensors")
        assert equal(back, model)
        assert back.config == model.config
        assert type(back) is type(model)
        assert not back.training
        header = json.loads(weights.read(tmp_path / "w.safetensors")[1]["graft"])
        assert header["card"] == {"data": "none"}
        assert back.classes is None


def test_class_names(tmp_path, tiny_dit):
    names = [f"class {i}" for i in range(10)]
    weights.save_model(tiny_dit, tmp_path / "w", card={"classes": names})
    assert weights.load(tmp_path / "w").classes == names
    export_pipeline(tiny_dit, tmp_path / "folder", classes=names)
    assert weights.load(tmp_path / "folder").classes == names


def test_a_published_dit_has_the_names_of_imagenet(tmp_path):
    """Files of others name none of their 1000 classes; those of this package say themselves."""
    model = DiT(DiTConfig(depth=1, width=16, heads=2, patch=2, input_size=4))
    torch.save(model.state_dict(), tmp_path / "w.pt")
    names = weights.load(tmp_path / "w.pt", heads=2).classes
    assert len(names) == 1000 and names[990] == "buckeye, horse chestnut, conker"
    assert [names[i] for i in (0, 134, 517, 783, 999)] == [
        *("tench, Tinca tinca", "crane", "crane", "screw"),
        "toilet tissue, toilet paper, bathroom tissue",
    ]
    weights.save_model(model, tmp_path / "w.safetensors")
    assert weights.load(tmp_path / "w.safetensors").classes is None


def test_weights_stay_in_the_file(tmp_path, tiny_dit):
    weights.save_model(tiny_dit, tmp_path / "w.safetensors")
    weight = weights.load(tmp_path / "w.safetensors").blocks[0].attn.qkv.weight
    assert weight.requires_grad
    with torch.no_grad():
        weight.zero_()
    assert equal(weights.load(tmp_path / "w.safetensors"), tiny_dit)


def test_loaded_models_compute(tmp_path, tiny_dit):
    weights.save_model(tiny_dit, tmp_path / "w.safetensors")
    x, t, y = torch.linspace(-2, 2, 512).view(2, 4, 8, 8), torch.tensor([3, 900]), torch.tensor([1, 10])
    assert torch.equal(weights.load(tmp_path / "w.safetensors")(x, t, y), tiny_dit(x, t, y))


def test_dtype(tmp_path, tiny_dit):
    weights.save_model(tiny_dit, tmp_path / "w.safetensors", dtype=torch.float16)
    half = weights.load(tmp_path / "w.safetensors")
    assert {p.dtype for p in half.parameters()} == {torch.float16}
    whole = weights.load(tmp_path / "w.safetensors", dtype=torch.float32)
    assert {p.dtype for p in whole.parameters()} == {torch.float32}
    assert torch.equal(whole.blocks[1].mlp.fc2.weight.half(), tiny_dit.blocks[1].mlp.fc2.weight.half())


def test_mixed_dtypes_become_float32(tmp_path, tiny_vae):
    tensors = spread(tiny_vae.state_dict(), LAYOUTS["vae-compvis"], 3)
    tensors["quant_conv.weight"] = tensors["quant_conv.weight"].half()
    tensors["quant_conv.bias"] = tensors["quant_conv.bias"].to(torch.float8_e4m3fn)
    torch.save(tensors, tmp_path / "w.ckpt")
    assert {p.dtype for p in weights.load(tmp_path / "w.ckpt", groups=8).parameters()} == {torch.float32}


def test_dit_official(tmp_path, tiny_dit):
    torch.save({"ema": tiny_dit.state_dict(), "args": argparse.Namespace(num_classes=10)}, tmp_path / "w.pt")
    back = weights.load(tmp_path / "w.pt", heads=4)
    assert equal(back, tiny_dit)
    assert asdict(back.config) == asdict(tiny_dit.config)
    with pytest.raises(ValueError, match="width 48 and depth 2 are no published size, so give heads="):
        weights.load(tmp_path / "w.pt")


def test_heads_of_published_sizes(tmp_path):
    model = empty("dit", DiTConfig(depth=8, width=192, heads=6, patch=1, input_size=4))
    save_file({k: torch.zeros(v.shape, dtype=torch.float16) for k, v in model.state_dict().items()}, tmp_path / "w")
    with pytest.warns(UserWarning, match="positions differ from the sinusoid by 1"):
        assert weights.load(tmp_path / "w").config == model.config


def test_tables_without_a_null_row(tmp_path):
    model = DiT(DiTConfig(depth=1, width=16, heads=2, patch=2, input_size=4, num_classes=5, class_dropout=0))
    torch.save({"model": model.state_dict(), "args": argparse.Namespace(num_classes=5)}, tmp_path / "w.pt")
    assert weights.load(tmp_path / "w.pt", heads=2).config == model.config
    assert weights.load(tmp_path / "w.pt", heads=2, num_classes=4).null == 4
    with pytest.raises(ValueError, match="expected 7 class rows, or one more for the null class, found 5"):
        weights.load(tmp_path / "w.pt", heads=2, num_classes=7)


def test_dit_diffusers_folder(tmp_path, tiny_dit):
    export(tiny_dit, tmp_path / "transformer", "dit-diffusers")
    back = weights.load(tmp_path / "transformer")
    assert equal(back, tiny_dit)
    assert back.config == tiny_dit.config
    (tmp_path / "transformer" / "config.json").unlink()
    with pytest.raises(ValueError, match="so give input_size="):
        weights.load(tmp_path / "transformer", heads=4)
    assert equal(weights.load(tmp_path / "transformer", heads=4, input_size=8), tiny_dit)


def test_positions_for_another_side(tmp_path, tiny_dit):
    weights.save_model(tiny_dit, tmp_path / "w")
    larger = weights.load(tmp_path / "w", input_size=16)
    assert torch.equal(larger.pos_embed, DiT(larger.config).pos_embed)
    tiny_dit.pos_embed.data += 0.5
    weights.save_model(tiny_dit, tmp_path / "w")
    with pytest.warns(UserWarning, match=r"differ from the sinusoid by 0\.5; they are kept"):
        assert equal(weights.load(tmp_path / "w"), tiny_dit)
    with pytest.raises(ValueError, match="cannot be resized from 4 to 8 patches"):
        weights.load(tmp_path / "w", input_size=16)


def test_positions_that_were_once_stored_in_half_precision_are_the_sinusoid(tmp_path, tiny_dit, recwarn):
    tiny_dit.pos_embed.data = tiny_dit.pos_embed.half().float()
    weights.save_model(tiny_dit, tmp_path / "w")
    assert equal(weights.load(tmp_path / "w"), tiny_dit) and not recwarn.list


def test_positions_of_another_shape(tmp_path, tiny_dit):
    tensors = spread(tiny_dit.state_dict(), LAYOUTS["dit-diffusers"], 2)
    options = {"heads": 4, "input_size": 8}
    save_file(copied(tensors | {"pos_embed.pos_embed": tiny_dit.pos_embed}), tmp_path / "w")
    assert equal(weights.load(tmp_path / "w", **options), tiny_dit)
    save_file(copied(tensors | {"pos_embed.pos_embed": torch.zeros(1, 15, 48)}), tmp_path / "w")
    with pytest.raises(ValueError, match=r"expected pos_embed.pos_embed of shape \[1, 16, 48\], found \[1, 15, 48\]"):
        weights.load(tmp_path / "w", **options)


def copied(tensors):
    return {name: tensor.detach().clone() for name, tensor in tensors.items()}


@pytest.mark.parametrize("layout", ["vae-compvis", "vae-diffusers", "vae-diffusers-old"])
def test_vae_layouts(tmp_path, tiny_vae, layout):
    target = tmp_path / ("w.ckpt" if layout == "vae-compvis" else "w")
    export(tiny_vae, target, layout)
    back = weights.load(target, **({"groups": 8} if layout == "vae-compvis" else {}))
    assert equal(back, tiny_vae)
    assert back.config == tiny_vae.config


def test_groups_are_asked_for(tmp_path, tiny_vae):
    export(tiny_vae, tmp_path / "w.pt", "vae-compvis")
    with pytest.raises(ValueError, match=r"channels \(16, 32, 32\) are no multiples of 32 groups, so give groups="):
        weights.load(tmp_path / "w.pt")


def sd_file(tmp_path, vae, **more):
    others = {
        "model.diffusion_model.input_blocks.0.0.weight": torch.zeros(320, 9, 3, 3),
        "model.diffusion_model.input_blocks.1.1.transformer_blocks.0.attn2.to_k.weight": torch.zeros(320, 1024),
        "model_ema.decay": torch.zeros(()),
        "cond_stage_model.model.ln_final.weight": torch.zeros(4),
        "alphas_cumprod": torch.zeros(1000),
        "posterior_mean_coef1": torch.zeros(1000),
        "betas": torch.zeros(1000),
    }
    save_file(copied(spread(vae.state_dict(), LAYOUTS["vae-in-sd"], 3)) | others | more, tmp_path / "sd.safetensors")
    return tmp_path / "sd.safetensors"


def test_vae_of_a_whole_stable_diffusion(tmp_path, tiny_vae):
    path = sd_file(tmp_path, tiny_vae)
    assert equal(weights.load(path, expect="vae", groups=8), tiny_vae)
    with pytest.raises(ValueError, match="a whole Stable Diffusion checkpoint; weights.load_sd reads it"):
        weights.load(path)
    with pytest.raises(ValueError, match="expected a dit, found a vae"):
        weights.load(path, expect="dit")
    xl = sd_file(tmp_path, tiny_vae, **{"conditioner.embedders.1.model.ln_final.weight": torch.zeros(2)})
    assert weights.load(xl, expect="vae", groups=8).config.scaling_factor == 0.13025
    with pytest.raises(ValueError, match="1 unknown"):
        weights.load(sd_file(tmp_path, tiny_vae, depth_model=torch.zeros(1)), expect="vae", groups=8)


def test_pipeline_folders(tmp_path, tiny_dit, tiny_vae):
    export_pipeline(tiny_dit, tmp_path, vae=tiny_vae)
    assert equal(weights.load(tmp_path), tiny_dit)
    assert equal(weights.load(tmp_path, expect="vae"), tiny_vae)
    (tmp_path / "model_index.json").write_text('{"_class_name": "StableDiffusionPipeline"}')
    with pytest.raises(ValueError, match="a folder of StableDiffusionPipeline"):
        weights.load(tmp_path)


def test_the_16_channel_vae_is_named(tmp_path, tiny_vae):
    tensors = spread(tiny_vae.state_dict(), LAYOUTS["vae-compvis"], 3)
    torch.save(tensors | {"encoder.conv_out.weight": torch.zeros(32, 32, 3, 3)}, tmp_path / "w.pt")
    with pytest.raises(ValueError, match="a Stable Diffusion 3 or Flux VAE with 16 latent channels"):
        weights.load(tmp_path / "w.pt", groups=8)


UNET = {
    "conv_in.weight": torch.zeros(320, 4, 3, 3),
    "down_blocks.0.attentions.0.transformer_blocks.0.attn2.to_k.weight": torch.zeros(320, 768),
}


@pytest.mark.parametrize(
    ("names", "what"),
    [
        (UNET, "a Stable Diffusion UNet in diffusers' names of Stable Diffusion 1, 4 input channels"),
        ("lora_unet_down_blocks_0_attentions_0_proj_in.lora_up.weight", "a LoRA file"),
        ("base_model.model.to_q.lora_A.weight", "a LoRA file"),
        ("emb_params", "a textual inversion embedding"),
        ("control_model.input_hint_block.0.weight", "a ControlNet"),
        ("model.diffusion_model.out.0.weight", "a Stable Diffusion UNet"),
        ("double_blocks.0.img_attn.qkv.weight", "a Flux transformer"),
        ("single_transformer_blocks.0.attn.to_q.weight", "a Flux transformer"),
        ("transformer_blocks.0.attn.add_q_proj.weight", "a Stable Diffusion 3 transformer"),
        ("text_model.final_layer_norm.weight", "a CLIP text encoder"),
        ("visual.proj", "a CLIP model"),
        ("Mixed_5b.branch1x1.conv.weight", "the Inception network"),
        ("lin0.model.1.weight", "LPIPS"),
        ("features.0.weight", "a VGG or AlexNet"),
        ("cls_token", "a vision transformer"),
        ("blocks.0.attn.qkv.weight", "another transformer than the class-conditional DiT"),
        ("encoder.conv_in.weight", "another autoencoder"),
        ("nothing.known", r"1 unknown tensors \(nothing.known"),
    ],
)
def test_other_kinds_are_named(names, what):
    tensors = names if isinstance(names, dict) else {names: torch.zeros(1)}
    expected = "w: expected a DiT, a VAE, a UNet, a ControlNet or a text encoder"
    with pytest.raises(ValueError, match=f"{expected}, found .*{what}"):
        detect(tensors, {}, "w")


def test_files_that_only_look_right(tmp_path, tiny_dit, tiny_vae):
    for model, gone in ((tiny_dit, "x_embedder.proj.weight"), (tiny_vae, "encoder.conv_in.weight")):
        layout = LAYOUTS["dit-official" if model is tiny_dit else "vae-compvis"]
        tensors = spread(model.state_dict(), layout, 3)
        del tensors[gone]
        torch.save(tensors, tmp_path / "w.pt")
        with pytest.raises(ValueError, match=f"expected {re.escape(gone)}, which tells the model's shape"):
            weights.load(tmp_path / "w.pt")


@pytest.mark.parametrize(
    ("graft", "message"),
    [
        ("[", "`graft` entry is not a JSON object"),
        ("[]", "`graft` entry is not a JSON object"),
        ('{"kind": "adapter"}', "an adapter file, expected a whole model"),
        ('{"kind": "dit", "config": {"depth": 1}}', "the config in its header does not fit"),
        ('{"kind": "vae", "config": 3}', "the config in its header does not fit"),
        ('{"kind": "vae", "config": {"channels": null}}', "the config in its header does not fit"),
        ('{"kind": "vae", "config": {"channels": [8, 8]}}', "expected 2 blocks by its header, found 3"),
        (
            '{"kind": "vae", "config": {"channels": [8, 8, 8], "layers": 1000000}}',
            r"layers 1000000 by its header, and the file has \d+ tensors",
        ),
    ],
)
def test_hostile_headers_of_our_own(tmp_path, tiny_vae, graft, message):
    save_file(copied(tiny_vae.state_dict()), tmp_path / "w", {"graft": graft})
    with pytest.raises(ValueError, match=message):
        weights.load(tmp_path / "w")


def test_native_names_without_a_header(tmp_path, tiny_vae):
    save_file(copied(tiny_vae.state_dict()), tmp_path / "w")
    assert equal(weights.load(tmp_path / "w", groups=8), tiny_vae)


def test_broken_weights_are_named(tmp_path, tiny_dit):
    tiny_dit.blocks[1].mlp.fc1.bias.data[3] = float("nan")
    weights.save_model(tiny_dit, tmp_path / "w")
    with pytest.raises(ValueError, match=r"NaN or infinity in 1 tensors \(blocks.1.mlp.fc1.bias\)"):
        weights.load(tmp_path / "w")
    assert weights.load(tmp_path / "w", check=False).blocks[1].mlp.fc1.bias.isnan().sum() == 1


def test_overrides(tmp_path, tiny_dit):
    weights.save_model(tiny_dit, tmp_path / "w")
    assert weights.load(tmp_path / "w", heads=1).blocks[0].attn.heads == 1 != tiny_dit.config.heads
    with pytest.raises(ValueError, match="unknown override 'head', a DiTConfig has depth, width"):
        weights.load(tmp_path / "w", head=3)
    with pytest.raises(ValueError, match="expect must be one of dit, vae, unet, controlnet, text"):
        weights.load(tmp_path / "w", expect="clip")
    with pytest.raises(ValueError, match="expected a vae, found a dit"):
        weights.load(tmp_path / "w", expect="vae")


def test_names_instead_of_paths(tmp_path, monkeypatch, tiny_dit):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    with pytest.raises(ValueError, match="tiny-nothing: no such file; shipped models are .* ones DiT-XL-2-256x256"):
        weights.load("tiny-nothing")
    with pytest.raises(ValueError, match="run `python -m weights.download DiT-XL-2-256x256`"):
        weights.load("DiT-XL-2-256x256")
    (tmp_path / "graft").mkdir()
    torch.save(tiny_dit.state_dict(), tmp_path / "graft" / "DiT-XL-2-256x256.pt")
    assert equal(weights.load("DiT-XL-2-256x256", heads=4, num_classes=10), tiny_dit)


def test_shipped_models_load_by_name(tmp_path, monkeypatch, tiny_dit):
    weights.save_model(tiny_dit, tmp_path / "tiny-test" / "model.safetensors")
    with monkeypatch.context() as patch:
        patch.setattr(sys.modules["weights.formats.published"], "SHIPPED", tmp_path)
        assert equal(weights.load("tiny-test"), tiny_dit)
    assert weights.load("tiny-dit").config.in_channels == weights.load("tiny-vae").config.latent_channels
    with pytest.raises(ValueError, match="tiny-features.*a feature network of the metrics, expected a DiT, a VAE"):
        weights.load("tiny-features")


def test_only_plain_models_are_saved(tmp_path, tiny_dit):
    import adapters

    with pytest.raises(ValueError, match="expected a DiT, a VAE, a UNet, a ControlNet or a text encoder, found Linear"):
        weights.save_model(torch.nn.Linear(2, 2), tmp_path / "w")
    adapters.attach(tiny_dit, "lora:rank=2")
    with pytest.raises(ValueError, match=r"found 4 others \(blocks.0.attn.qkv.lora_down"):
        weights.save_model(tiny_dit, tmp_path / "w")
    weights.save_model(adapters.merge(tiny_dit), tmp_path / "w")
    assert equal(weights.load(tmp_path / "w"), tiny_dit)

"""ControlNet files: diffusers' folder, the original's file alone or in a checkpoint, and diffusers as the oracle."""

import json
from dataclasses import replace

import pytest
import torch
from safetensors.torch import load_file, save_file

import weights
from unet import ControlConfig, ControlledText, ControlNet
from unet.sizes import UNETS as SIZES
from weights.convert import convert
from weights.layouts.diffusers_json import controlnet_json
from weights.layouts.exchange import LAYOUTS, file_names, fill, spread
from weights.layouts.infer import Source
from weights.layouts.kinds import KINDS, empty, size_of

SD1, SD2 = ControlConfig(), ControlConfig(heads=(5, 10, 20, 20), text_width=1024, linear=True, upcast=True)
PUBLISHED = ("controlnet-diffusers", "controlnet-compvis", "controlnet-compvis-bare")


def trained(control):
    """Random values everywhere, because half of a new one is zero."""
    generator = torch.Generator().manual_seed(5)
    with torch.no_grad():
        for parameter in control.parameters():
            parameter.copy_(0.05 * torch.randn(parameter.shape, generator=generator))
    return control.eval()


@pytest.fixture(scope="module")
def both(sd):
    """(a tiny Stable Diffusion, a ControlNet of it, what a file of it does not tell)."""
    return sd[0], trained(ControlNet.of(sd[0].unet)), sd[1]["unet"]


@pytest.fixture(scope="module")
def tiny(sd1):
    return sd1[0], trained(ControlNet.of(sd1[0].unet, hint_channels=1, factor=4)), sd1[1]["unet"]


def equal(a, b):
    theirs = b.state_dict()
    return a.state_dict().keys() == theirs.keys() and all(torch.equal(v, theirs[k]) for k, v in a.state_dict().items())


def same(found, control):
    """All but the latent's side, which no ControlNet's file holds."""
    assert isinstance(found, ControlNet) and not found.training
    assert replace(found.config, input_size=16) == control.config
    return equal(found, control)


def written(control, path):
    """The tensors of the original's file."""
    weights.save_control(control, path, "controlnet-compvis")
    return load_file(path)


# names


@pytest.mark.parametrize("layout", PUBLISHED)
@pytest.mark.parametrize(
    ("config", "values"), [(SD1, 361_279_120), (replace(SD1, hint_channels=1), 361_278_832), (SD2, 364_228_240)]
)
def test_counts_at_full_size(config, values, layout):
    state, size = empty("controlnet", config).state_dict(), size_of(config)
    found = spread(state, LAYOUTS[layout], size)
    assert (len(found), sum(tensor.numel() for tensor in found.values())) == (340, values)
    assert KINDS["controlnet"].measure(found) == size
    shapes = {name: tuple(tensor.shape) for name, tensor in state.items()}
    back = fill(found, shapes, LAYOUTS[layout], size, "w")
    assert all(back[name] is state[name] for name in shapes)
    fields = KINDS["controlnet"].infer(Source(LAYOUTS[layout], found, {}, size, {}, "w"))
    assert ControlConfig(**fields) == config


@pytest.mark.parametrize(
    ("ours", "original", "diffusers"),
    [
        ("time_embed.0.weight", "time_embed.0.weight", "time_embedding.linear_1.weight"),
        ("conv_in.bias", "input_blocks.0.0.bias", "conv_in.bias"),
        ("down.0.downsample.weight", "input_blocks.3.0.op.weight", "down_blocks.0.downsamplers.0.conv.weight"),
        ("down.3.resnets.1.conv2.bias", "input_blocks.11.0.out_layers.3.bias", "down_blocks.3.resnets.1.conv2.bias"),
        ("mid.attentions.0.norm.weight", "middle_block.1.norm.weight", "mid_block.attentions.0.norm.weight"),
        ("hint.conv_in.weight", "input_hint_block.0.weight", "controlnet_cond_embedding.conv_in.weight"),
        ("hint.blocks.0.weight", "input_hint_block.2.weight", "controlnet_cond_embedding.blocks.0.weight"),
        ("hint.blocks.5.bias", "input_hint_block.12.bias", "controlnet_cond_embedding.blocks.5.bias"),
        ("hint.conv_out.weight", "input_hint_block.14.weight", "controlnet_cond_embedding.conv_out.weight"),
        ("zero.11.weight", "zero_convs.11.0.weight", "controlnet_down_blocks.11.weight"),
        ("zero_mid.bias", "middle_block_out.0.bias", "controlnet_mid_block.bias"),
    ],
)
def test_single_names(ours, original, diffusers):
    for layout, theirs in zip(PUBLISHED, (diffusers, f"control_model.{original}", original)):
        assert file_names(ours, LAYOUTS[layout], size_of(SD1)) == [theirs]


# there and back


def test_every_kind_of_file_there_and_back(tmp_path, both):
    _, control, known = both
    weights.save_control(control, tmp_path / "folder", "controlnet-diffusers")
    assert same(weights.load_control(tmp_path / "folder"), control)
    single = tmp_path / "folder" / "diffusion_pytorch_model.safetensors"
    assert same(weights.load_control(single, **known), control)
    weights.save_control(control, tmp_path / "w.pth", "controlnet-compvis")
    assert same(weights.load_control(tmp_path / "w.pth", **known), control)
    tensors = written(control, tmp_path / "w.safetensors")
    assert len(tensors) == 340 and all(name.startswith("control_model.") for name in tensors)
    bare = {name.removeprefix("control_model."): tensor for name, tensor in tensors.items()}
    assert next(iter(sorted(bare))) == "input_blocks.0.0.bias"
    torch.save({"state_dict": bare}, tmp_path / "bare.ckpt")
    assert same(weights.load_control(tmp_path / "bare.ckpt", **known), control)
    assert same(weights.load(single, **known), control)


def test_our_own_file(tmp_path, tiny):
    control = tiny[1]
    weights.save_model(control, tmp_path / "w.safetensors", card={"hint": "edges"})
    found = weights.load_control(tmp_path / "w.safetensors")
    assert equal(found, control) and found.config == control.config
    # without its header
    save_file(load_file(tmp_path / "w.safetensors"), tmp_path / "x.safetensors")
    assert same(weights.load_control(tmp_path / "x.safetensors", **tiny[2]), control)


def test_a_mask_and_another_factor_are_seen_in_the_shapes(tmp_path, tiny):
    _, control, known = tiny
    for layout, name in (("controlnet-diffusers", "w"), ("controlnet-compvis", "w.safetensors")):
        weights.save_control(control, tmp_path / name, layout)
        found = weights.load_control(tmp_path / name, **known)
        assert same(found, control)
        assert (found.config.hint_channels, found.config.hint_widths) == (1, (16, 32, 96))


def test_together_with_its_stable_diffusion(tmp_path, both):
    sd, control, known = both
    weights.save_control(control, tmp_path / "w.safetensors", "controlnet-compvis", base=sd)
    tensors = load_file(tmp_path / "w.safetensors")
    weights.save_sd(sd, tmp_path / "sd.safetensors", "sd-compvis")
    beside, alone = load_file(tmp_path / "sd.safetensors"), written(control, tmp_path / "c.safetensors")
    assert tensors.keys() == beside.keys() | alone.keys()
    assert same(weights.load_control(tmp_path / "w.safetensors", **known), control)
    torch.save(tensors | {"betas": torch.zeros(1000), "control_scales": torch.zeros(13)}, tmp_path / "w.ckpt")
    with pytest.raises(ValueError, match=r"expected 340 tensors of our controlnet, found 1 unknown \(control_scales\)"):
        weights.load_control(tmp_path / "w.ckpt", **known)


def test_in_a_pipeline_and_as_another_dtype(tmp_path, tiny):
    control = tiny[1]
    weights.save_control(control, tmp_path / "controlnet", "controlnet-diffusers", torch.float16)
    (tmp_path / "model_index.json").write_text(json.dumps({"_class_name": "StableDiffusionControlNetPipeline"}))
    found = weights.load_control(tmp_path)
    assert {p.dtype for p in found.parameters()} == {torch.float16}
    assert torch.equal(found.conv_in.weight, control.conv_in.weight.half())
    assert weights.load_control(tmp_path, dtype=torch.float32).conv_in.weight.dtype == torch.float32


def test_the_converter(tmp_path, tiny):
    _, control, known = tiny
    weights.save_model(control, tmp_path / "a.safetensors")
    convert(tmp_path / "a.safetensors", tmp_path / "b", "controlnet-diffusers")
    convert(tmp_path / "b", tmp_path / "c.safetensors", "controlnet-compvis")
    convert(tmp_path / "c.safetensors", tmp_path / "d.safetensors", "native", **known)
    assert same(weights.load_control(tmp_path / "d.safetensors"), control)
    with pytest.raises(ValueError, match="expected a unet, found a controlnet"):
        convert(tmp_path / "b", tmp_path / "x", "unet-diffusers")


# what diffusers makes of it


def theirs_of(config):
    diffusers = pytest.importorskip("diffusers")
    settings = controlnet_json(config)
    return diffusers.ControlNetModel(**{name: value for name, value in settings.items() if name[0] != "_"})


@torch.no_grad()
def test_diffusers_computes_the_same(tmp_path, both):
    """The residuals, and with them the UNet's output."""
    diffusers = pytest.importorskip("diffusers")
    sd, control, _ = both
    weights.save_control(control, tmp_path / "control", "controlnet-diffusers")
    weights.save_sd(sd, tmp_path / "sd", "sd-diffusers")
    theirs, info = diffusers.ControlNetModel.from_pretrained(tmp_path / "control", output_loading_info=True)
    assert not any(info.values())
    unet = diffusers.UNet2DConditionModel.from_pretrained(tmp_path / "sd" / "unet")
    generator = torch.Generator().manual_seed(0)
    x, cond = torch.randn(2, 4, 16, 8, generator=generator), torch.randn(2, 7, 32, generator=generator)
    hint, t = torch.rand(2, 3, 128, 64, generator=generator), torch.tensor([3, 700])
    down, mid = theirs(x, t, cond, hint, conditioning_scale=0.7, return_dict=False)
    ours = control(x, t, cond, hint, strength=0.7)
    assert len(ours) == 13
    for ours_one, expected in zip(ours, [*down, mid], strict=True):
        assert expected.std() > 1e-3
        torch.testing.assert_close(ours_one, expected, atol=1e-5, rtol=0)
    expected = unet(x, t, cond, down_block_additional_residuals=down, mid_block_additional_residual=mid).sample
    out = ControlledText(sd.unet, sd.text, control)(x, t, cond, hint, strength=0.7)
    torch.testing.assert_close(out, expected, atol=1e-5, rtol=0)
    assert (out - sd.unet(x, t, cond)).abs().max() > 1e-3


def test_we_open_what_diffusers_wrote(tmp_path, both):
    _, control, _ = both
    theirs = theirs_of(control.config)
    theirs.load_state_dict(spread(control.state_dict(), LAYOUTS["controlnet-diffusers"], size_of(control.config)))
    theirs.save_pretrained(tmp_path / "w", variant="fp16")
    assert same(weights.load_control(tmp_path / "w", variant="fp16"), control)


def test_diffusers_reads_the_original_names(tmp_path, both):
    single_file = pytest.importorskip("diffusers.loaders.single_file_utils")
    _, control, _ = both
    theirs = theirs_of(control.config)
    found = single_file.convert_controlnet_checkpoint(written(control, tmp_path / "w.safetensors"), dict(theirs.config))
    expected = spread(control.state_dict(), LAYOUTS["controlnet-diffusers"], size_of(control.config))
    assert found.keys() == expected.keys() == theirs.state_dict().keys()
    assert all(torch.equal(found[name], expected[name]) for name in expected)


def test_it_starts_as_that_of_diffusers(tmp_path, both):
    diffusers = pytest.importorskip("diffusers")
    sd = both[0]
    weights.save_sd(sd, tmp_path, "sd-diffusers")
    unet = diffusers.UNet2DConditionModel.from_pretrained(tmp_path / "unet")
    expected = diffusers.ControlNetModel.from_unet(unet).state_dict()
    control = ControlNet.of(sd.unet)
    found = spread(control.state_dict(), LAYOUTS["controlnet-diffusers"], size_of(control.config))
    assert found.keys() == expected.keys()
    drawn = {name for name in found if not torch.equal(found[name], expected[name])}
    hint = {name for name in found if name.startswith("controlnet_cond_embedding.")}
    assert drawn == hint - {f"controlnet_cond_embedding.conv_out.{part}" for part in ("weight", "bias")}


@pytest.mark.parametrize("config", [SD1, SD2, ControlConfig(hint_channels=1, **vars(SIZES["UNet-T"]))])
def test_all_names_and_shapes_are_theirs(config):
    with torch.device("meta"):
        theirs = theirs_of(config).state_dict()
    ours = spread(empty("controlnet", config).state_dict(), LAYOUTS["controlnet-diffusers"], size_of(config))
    assert {name: t.shape for name, t in ours.items()} == {name: t.shape for name, t in theirs.items()}


# what is refused


@pytest.fixture
def read(tmp_path):
    def read(tensors, loader=weights.load_control, **options):
        save_file(tensors, tmp_path / "w.safetensors")
        return loader(tmp_path / "w.safetensors", **options)

    return read


def test_files_that_are_no_controlnet_of_stable_diffusion(tmp_path, tiny, read):
    _, control, known = tiny
    tensors = written(control, tmp_path / "c.safetensors")
    bare = {name.removeprefix("control_model."): tensor for name, tensor in tensors.items()}
    for extra in ({"difference": torch.ones(())}, {"control_model.difference": torch.ones(())}):
        with pytest.raises(ValueError, match="the differences of a ControlNet from its UNet"):
            read((bare if "difference" in extra else tensors) | extra, **known)
    lora = {name.replace(".in_layers.2.weight", ".in_layers.2.down"): tensor for name, tensor in bare.items()}
    with pytest.raises(ValueError, match="expected a ControlNet, found a LoRA file"):
        read(lora | {"lora_controlnet": torch.ones(())}, **known)
    wide = {name: torch.zeros(len(t), 1280) if name.endswith("attn2.to_k.weight") else t for name, t in bare.items()}
    with pytest.raises(ValueError, match=r"Stable Diffusion XL \(refiner\), its UNet reads text states 1280 wide"):
        read(wide, **known)
    with pytest.raises(ValueError, match="also conditioned on a class or an image"):
        read(bare | {"label_emb.0.0.weight": torch.zeros(1)}, **known)
    with pytest.raises(ValueError, match="expected a controlnet, found a vae"):
        weights.load_control("tiny-vae")


def test_damaged_files(tmp_path, tiny, read):
    _, control, known = tiny
    tensors = written(control, tmp_path / "c.safetensors")
    del tensors["control_model.zero_convs.3.0.bias"]
    with pytest.raises(ValueError, match=r"found 1 missing \(control_model.zero_convs.3.0.bias\), 1 unknown \(odd\)"):
        read(tensors | {"odd": torch.ones(1)}, **known)
    with pytest.raises(ValueError, match="no published size, so give heads=, 4 numbers"):
        read(tensors)
    del tensors["control_model.input_hint_block.2.weight"]
    with pytest.raises(ValueError, match="tensors of our controlnet, found"):
        read(tensors, **known)


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("global_pool_conditions", True),
        ("controlnet_conditioning_channel_order", "bgr"),
        ("addition_embed_type", "image"),
    ],
)
def test_settings_that_ours_does_not_have(tmp_path, tiny, field, value):
    weights.save_control(tiny[1], tmp_path / "w", "controlnet-diffusers")
    config = tmp_path / "w" / "config.json"
    config.write_text(json.dumps(json.loads(config.read_text()) | {field: value}))
    with pytest.raises(ValueError, match=f"in its config.json, found {value}"):
        weights.load_control(tmp_path / "w")


def test_a_controlnet_where_a_stable_diffusion_is_expected(tmp_path, tiny):
    """In each of its files it is named, with what reads it."""
    sd, control, known = tiny
    weights.save_control(control, tmp_path / "folder", "controlnet-diffusers")
    with pytest.raises(ValueError, match="found a ControlNet, which weights.load_control reads"):
        weights.load_sd(tmp_path / "folder")
    written(control, tmp_path / "w.safetensors")
    with pytest.raises(ValueError, match="expected a whole .*, found a ControlNet, which weights.load_control reads"):
        weights.load_sd(tmp_path / "w.safetensors")
    weights.save_control(control, tmp_path / "w.safetensors", "controlnet-compvis", base=sd)
    with pytest.raises(ValueError, match="Stable Diffusion beside a ControlNet, which weights.load_control reads"):
        weights.load_sd(tmp_path / "w.safetensors", unet=known)
    with pytest.raises(ValueError, match="weights.load_control reads its ControlNet, or expect= one of"):
        weights.load(tmp_path / "w.safetensors")


def test_what_is_not_written(tmp_path, tiny):
    sd, control, _ = tiny
    with pytest.raises(ValueError, match="expected one of the layouts controlnet-diffusers, .* found 'sd-compvis'"):
        weights.save_control(control, tmp_path / "w", "sd-compvis")
    with pytest.raises(ValueError, match="found 'controlnet-diffusers' with a base"):
        weights.save_control(control, tmp_path / "w", "controlnet-diffusers", base=sd)
    with pytest.raises(ValueError, match="controlnet-compvis holds a controlnet, found a unet"):
        weights.save_control(sd.unet, tmp_path / "w.pth", "controlnet-compvis")
    other = ControlNet(replace(control.config, text_width=64))
    with pytest.raises(ValueError, match="belongs to another UNet: its text_width is 64, this UNet's 32"):
        weights.save_control(other, tmp_path / "w.safetensors", "controlnet-compvis", base=sd)
    assert not list(tmp_path.iterdir())

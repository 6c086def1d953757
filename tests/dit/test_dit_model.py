"""The model: sizes as published, the start as in the paper, guidance as in the official code."""

from collections import Counter

import pytest
import torch

from dit import SIZES, DiT, DiTConfig

TINY = dict(depth=2, width=32, heads=4, patch=2, input_size=8, num_classes=5)


def tiny(**fields):
    """A small DiT whose zero tensors are filled, as if it had been trained."""
    torch.manual_seed(0)
    model = DiT(DiTConfig(**TINY | fields))
    with torch.no_grad():
        for parameter in model.parameters():
            if not parameter.any():
                parameter.normal_(std=0.1)
    return model


def inputs(batch=2, side=8):
    generator = torch.Generator().manual_seed(1)
    x = torch.randn(batch, 4, side, side, generator=generator)
    return x, torch.arange(batch) * 400 + 17, torch.arange(batch) % 5


def on_meta(name, **fields):
    with torch.device("meta"):
        return DiT.from_name(name, **fields)


def count(module):
    return sum(parameter.numel() for parameter in module.parameters())


# ---- sizes (Peebles and Xie 2023, table 1; totals with the position table, 256 pixels, 1000 classes) ----

OFFICIAL = {
    "DiT-S/2": 32_963_360,
    "DiT-S/4": 32_945_024,
    "DiT-S/8": 33_148_160,
    "DiT-B/2": 130_512_416,
    "DiT-B/4": 130_475_648,
    "DiT-B/8": 130_881_536,
    "DiT-L/2": 458_102_816,
    "DiT-L/4": 458_053_760,
    "DiT-L/8": 458_594_816,
    "DiT-XL/2": 675_129_632,
    "DiT-XL/4": 675_074_432,
    "DiT-XL/8": 675_683_072,
}


@pytest.mark.parametrize(("name", "total"), OFFICIAL.items())
def test_official_sizes(name, total):
    assert count(on_meta(name)) == total


def test_sizes_are_the_official_ones_and_the_small_one():
    assert set(SIZES) == {*OFFICIAL, "DiT-T/1", "DiT-T/2"}
    assert SIZES["DiT-T/2"] == dict(depth=8, width=192, heads=6, patch=2)


@pytest.mark.parametrize(("name", "biases"), [("S", 71_072), ("B", 142_112), ("L", 373_792), ("XL", 489_632)])
def test_bias_counts(name, biases):
    named = dict(on_meta(f"DiT-{name}/2").named_parameters())
    assert sum(p.numel() for key, p in named.items() if key.endswith("bias")) == biases


def test_xl_in_parts():
    model = on_meta("DiT-XL/2")
    named = dict(model.named_parameters())
    assert len(named) == 292 and sum(key.endswith("bias") for key in named) == 145
    assert count(model) - model.pos_embed.numel() == 674_834_720
    parts = model.blocks[0], model.final_layer, model.t_embedder, model.x_embedder, model.y_embedder
    assert [count(part) for part in parts] == [23_905_152, 2_693_408, 1_624_320, 19_584, 1_153_152]


def test_xl_at_512_pixels_has_a_longer_position_table():
    model = on_meta("DiT-XL/2", image_size=512)
    assert model.pos_embed.shape == (1, 1024, 1152) and count(model) == 676_014_368


def test_names_and_shapes_are_the_official_ones():
    shapes = {key: tuple(value.shape) for key, value in tiny().state_dict().items()}
    block = {
        "attn.qkv.weight": (96, 32),
        "attn.qkv.bias": (96,),
        "attn.proj.weight": (32, 32),
        "attn.proj.bias": (32,),
        "mlp.fc1.weight": (128, 32),
        "mlp.fc1.bias": (128,),
        "mlp.fc2.weight": (32, 128),
        "mlp.fc2.bias": (32,),
        "adaLN_modulation.1.weight": (192, 32),
        "adaLN_modulation.1.bias": (192,),
    }
    assert shapes == {
        "pos_embed": (1, 16, 32),
        "x_embedder.proj.weight": (32, 4, 2, 2),
        "x_embedder.proj.bias": (32,),
        "t_embedder.mlp.0.weight": (32, 256),
        "t_embedder.mlp.0.bias": (32,),
        "t_embedder.mlp.2.weight": (32, 32),
        "t_embedder.mlp.2.bias": (32,),
        "y_embedder.embedding_table.weight": (6, 32),
        "final_layer.linear.weight": (32, 32),
        "final_layer.linear.bias": (32,),
        "final_layer.adaLN_modulation.1.weight": (64, 32),
        "final_layer.adaLN_modulation.1.bias": (64,),
    } | {f"blocks.{i}.{key}": shape for i in range(2) for key, shape in block.items()}


# ---- the start ----


def test_a_new_model_answers_zero():
    assert not DiT(DiTConfig(**TINY))(*inputs()).any()


def test_a_new_block_is_the_identity():
    model = DiT(DiTConfig(**TINY))
    x, c = torch.randn(2, 16, 32), torch.randn(2, 32)
    assert torch.equal(model.blocks[0](x, c), x)


def test_only_the_final_linear_learns_at_step_one():
    model = DiT(DiTConfig(**TINY))
    (model(*inputs()) - torch.randn(2, 8, 8, 8)).square().mean().backward()
    learns = {key for key, p in model.named_parameters() if p.grad is not None and p.grad.any()}
    assert learns == {"final_layer.linear.weight", "final_layer.linear.bias"}


def test_initial_spreads():
    model = DiT(DiTConfig(**TINY | dict(width=128, num_classes=199)))
    expected = {  # Xavier-uniform: sqrt(2 / (in + out)); the patch convolution counts as a Linear of 16 inputs
        "blocks.0.attn.qkv.weight": (2 / 512) ** 0.5,
        "blocks.1.mlp.fc1.weight": (2 / 640) ** 0.5,
        "x_embedder.proj.weight": (2 / 144) ** 0.5,
        "t_embedder.mlp.0.weight": 0.02,
        "t_embedder.mlp.2.weight": 0.02,
        "y_embedder.embedding_table.weight": 0.02,
    }
    parameters = dict(model.named_parameters())
    for key, spread in expected.items():
        assert parameters[key].std().item() == pytest.approx(spread, rel=0.04), key
    assert not any(p.any() for key, p in parameters.items() if key.endswith("bias"))


def test_the_same_seed_gives_the_same_model():
    first, second = tiny().state_dict(), tiny().state_dict()
    assert all(torch.equal(first[key], second[key]) for key in first)


# ---- forward ----


@pytest.mark.parametrize(("fields", "channels"), [({}, 8), ({"learn_sigma": False}, 4)])
def test_output_channels(fields, channels):
    assert tiny(**fields)(*inputs()).shape == (2, channels, 8, 8)


@pytest.mark.parametrize(("image_size", "side"), [(64, 8), (128, 16), (144, 18)])
def test_any_image_size(image_size, side):
    model = DiT.from_name("DiT-T/2", image_size=image_size, num_classes=5, depth=1)
    assert model(*inputs(side=side)).shape == (2, 8, side, side)


def test_input_size_overrides_image_size():
    assert DiT.from_name("DiT-T/1", input_size=6, num_classes=5, depth=1)(*inputs(side=6)).shape == (2, 8, 6, 6)


def test_output_patches_are_row_major_with_the_channel_fastest():
    model = DiT(DiTConfig(**TINY))
    with torch.no_grad():
        model.final_layer.linear.bias.copy_(torch.arange(32.0))
    out = model(*inputs())[0]
    assert out[3, :2, :2].tolist() == [[3, 11], [19, 27]]  # 8 channels: pixel (p, q) of channel c is 8 (2 p + q) + c
    assert torch.equal(out[:, :2, :2], out[:, 4:6, 2:4])


def test_a_changed_patch_leaves_its_place():
    model = DiT(DiTConfig(**TINY | dict(depth=0)))  # no attention: every token alone
    torch.nn.init.normal_(model.final_layer.linear.weight)
    x, t, y = inputs(batch=1)
    other = x.clone()
    other[:, :, 2:4, 6:8] += 1
    changed = (model(x, t, y) != model(other, t, y))[0, 0]
    assert changed[2:4, 6:8].all() and changed.sum() == 4


def test_time_and_class_both_matter():
    model, (x, t, y) = tiny(), inputs()
    out = model(x, t, y)
    assert not torch.allclose(out, model(x, t + 1, y)) and not torch.allclose(out, model(x, t, y + 1))


def test_training_mode_changes_nothing():
    model = tiny()
    assert torch.equal(model.train()(*inputs()), model.eval()(*inputs()))


def test_pure_bfloat16():
    model, (x, t, y) = tiny(), inputs()
    full = model(x, t, y)
    out = model.bfloat16()(x.bfloat16(), t, y)
    assert out.dtype == torch.bfloat16
    torch.testing.assert_close(out.float(), full, atol=0.05 * full.std().item(), rtol=0.05)


def test_autocast_trains_float32_weights():
    model, (x, t, y) = tiny(), inputs()
    with torch.autocast("cpu", torch.bfloat16):
        out = model(x, t, y)
    torch.testing.assert_close(out.float(), model(x, t, y), atol=0.05 * out.float().std().item(), rtol=0.05)
    out.float().square().mean().backward()
    assert all(p.grad.dtype == torch.float32 and p.grad.any() for p in model.parameters() if p.requires_grad)


def test_float64():
    model, (x, t, y) = tiny(), inputs()
    full = model(x, t, y)
    torch.testing.assert_close(model.double()(x.double(), t, y).float(), full, atol=1e-5, rtol=1e-4)


def test_compiles_as_one_graph():
    model, batch = tiny(), inputs()
    whole = torch.compile(model, backend="eager", fullgraph=True)
    torch.testing.assert_close(whole(*batch), model(*batch))


def test_the_position_table_never_trains():
    frozen = [key for key, p in DiT(DiTConfig(**TINY)).named_parameters() if not p.requires_grad]
    assert frozen == ["pos_embed"]


def test_leaves_are_plain_torch_layers():
    leaves = Counter(type(m) for m in tiny().modules() if not list(m.children()))
    nn = torch.nn
    assert leaves == {nn.Linear: 14, nn.Conv2d: 1, nn.Embedding: 1, nn.LayerNorm: 5, nn.SiLU: 4, nn.GELU: 2}


def test_affine_norms_given_later_are_used():
    model, batch = tiny(), inputs()
    plain = model(*batch)
    norms = [m for m in model.modules() if isinstance(m, torch.nn.LayerNorm)]
    for norm in norms:
        norm.register_parameter("weight", torch.nn.Parameter(torch.ones(32)))
        norm.register_parameter("bias", torch.nn.Parameter(torch.zeros(32)))
    torch.testing.assert_close(model(*batch), plain, atol=1e-6, rtol=1e-5)
    model(*batch).square().mean().backward()
    assert all(norm.weight.grad.any() and norm.bias.grad.any() for norm in norms)


# ---- guidance ----


def halves(model):
    """A stacked batch of two with labels [1, 4; null, null], its guided call, and the plain calls (cond, null)."""
    x, t, _ = inputs()
    y, null = torch.tensor([1, 4]), torch.full((2,), model.null)
    stacked = torch.cat([x, x]), torch.cat([t, t]), torch.cat([y, null])
    return stacked, model(x, t, y), model(x, t, null)


def close(a, b):
    torch.testing.assert_close(a, b, atol=1e-6, rtol=1e-5)


def test_guidance_of_one_is_the_conditional_output():
    model = tiny()
    stacked, cond, _ = halves(model)
    close(model.forward_with_cfg(*stacked, 1.0)[:2], cond)


def test_guidance_of_zero_is_unconditional_on_three_channels_only():
    model = tiny()
    stacked, cond, null = halves(model)
    out = model.forward_with_cfg(*stacked, 0.0)
    close(out[:2, :3], null[:, :3])
    close(out[:2, 3:], cond[:, 3:])
    close(out[2:, 3:], null[:, 3:])


@pytest.mark.parametrize(("channels", "guided"), [(3, 3), (None, 4)])
def test_guidance_extrapolates_and_both_halves_share_it(channels, guided):
    model = tiny()
    stacked, cond, null = halves(model)
    out = model.forward_with_cfg(*stacked, 4.0, channels=channels)
    close(out[:2, :guided], (4 * cond - 3 * null)[:, :guided])
    assert torch.equal(out[:2, :guided], out[2:, :guided])
    close(out[:2, guided:], cond[:, guided:])


def test_guidance_reads_only_the_first_half():
    model = tiny()
    (x, t, y), *_ = halves(model)
    noise = torch.cat([x[:2], torch.full_like(x[:2], float("nan"))])
    assert torch.equal(model.forward_with_cfg(noise, t, y, 2.0), model.forward_with_cfg(x, t, y, 2.0))


def test_guidance_of_an_odd_batch_is_refused():
    with pytest.raises(ValueError, match="odd number of samples, 3"):
        tiny().forward_with_cfg(*inputs(batch=3), 2.0)


# ---- errors, and the null row ----


def test_the_null_row_is_the_last():
    model = tiny()
    assert model.null == 5 and model.y_embedder.embedding_table.num_embeddings == 6


def test_without_dropout_there_is_no_null_row():
    model = tiny(class_dropout=0)
    assert model.y_embedder.embedding_table.num_embeddings == 5
    with pytest.raises(ValueError, match="5 rows and no null row"):
        model.null  # noqa: B018


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"heads": 5}, "width 32 is not a multiple of 5 heads"),
        ({"input_size": 7}, "input size 7 is not a multiple of patch 2"),
        ({"width": 34, "heads": 2}, "multiple of 4, found 34"),
    ],
)
def test_impossible_shapes_are_refused(fields, message):
    with pytest.raises(ValueError, match=message):
        tiny(**fields)


def test_wrong_input_shape_is_refused():
    with pytest.raises(ValueError, match=r"x must be \(B, 4, 8, 8\), found \(2, 4, 16, 16\)"):
        tiny()(*inputs(side=16))


def test_unknown_size_is_refused():
    with pytest.raises(ValueError, match="unknown size 'DiT-M/2'.*DiT-XL/8"):
        DiT.from_name("DiT-M/2")


def test_image_size_must_fit_the_vae():
    with pytest.raises(ValueError, match="image size 100 is not a multiple of 8"):
        DiT.from_name("DiT-T/2", image_size=100)

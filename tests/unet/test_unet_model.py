"""The UNet: published sizes, what it accepts, what depends on what, and the zero start."""

from dataclasses import replace

import pytest
import torch
from torch import nn

import adapters
from ops.attention import reference
from sampling import Schedule, batched_cfg, sample_latents
from unet.block import GEGLU, Attention, SpatialTransformer, TimeResBlock
from unet.model import UNet, UNetConfig
from unet.sizes import UNETS as SIZES

TINY = UNetConfig(
    channels=(8, 16, 16), text=(True, True, False), heads=(2, 4, 2), layers=1, text_width=6, groups=4, input_size=8
)


def tiny(**fields):
    """A small UNet whose zero tensors are filled, as if it had been trained."""
    torch.manual_seed(0)
    model = UNet(replace(TINY, **fields)).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            if not parameter.any():
                parameter.normal_(std=0.1)
    return model


def inputs(batch=2, height=8, width=8, channels=4):
    generator = torch.Generator().manual_seed(1)
    x = torch.randn(batch, channels, height, width, generator=generator)
    return x, torch.arange(batch) * 400 + 17, torch.randn(batch, 5, 6, generator=generator)


def on_meta(name):
    with torch.device("meta"):
        return UNet(SIZES[name])


def count(parameters):
    return sum(parameter.numel() for parameter in parameters)


# sizes


@pytest.mark.parametrize(
    ("name", "total", "side"),
    [
        ("SD-1", 859_520_964, 64),
        ("SD-2", 865_910_724, 64),
        ("SD-2-v", 865_910_724, 96),
        ("SD-inpaint", 859_535_364, 64),
        ("SD-2-inpaint", 865_910_724 + 5 * 320 * 3 * 3, 64),
    ],
)
def test_published_sizes(name, total, side):
    model = on_meta(name)
    state = model.state_dict()
    assert (len(state), count(state.values())) == (686, total)
    assert model.latent_shape == (4, side, side) and model.factor == 8


def test_the_small_one():
    model = on_meta("UNet-T")
    assert model.latent_shape == (6, 16, 16) and count(model.parameters()) == 5_900_902
    assert [width // heads for width, heads in zip(model.config.channels, model.config.heads)] == [32, 32, 32]


def test_the_parts_that_adapters_are_counted_on():
    """Published counts for Stable Diffusion 1: rank-4 LoRA, every layer kohya adapts, norms, Custom Diffusion."""
    model = on_meta("SD-1")
    layers = dict(model.named_modules())
    inside = [name for name, layer in layers.items() if ".attentions." in name and isinstance(layer, nn.Linear)]
    around = [name for name in layers if name.endswith((".proj_in", ".proj_out"))]
    convolutions = [name for name, layer in layers.items() if isinstance(layer, nn.Conv2d) and "resnets" in name]
    assert len(inside) + len(around) == 192
    assert len(convolutions) + len([name for name in layers if name.endswith("time_emb_proj")]) == 44 + 36
    norms = [layer for layer in layers.values() if isinstance(layer, (nn.GroupNorm, nn.LayerNorm))]
    assert (len(norms), count(p for layer in norms for p in layer.parameters())) == (109, 200_320)
    named = dict(model.named_parameters())
    assert count(p for name, p in named.items() if "attn2.to_k" in name or "attn2.to_v" in name) == 19_169_280
    assert count(p for name, p in named.items() if "attn2." in name) == 43_962_560
    with torch.device("meta"):
        adapters.attach(model, "lora:rank=4")
    added = [p for p in model.parameters() if p.requires_grad]
    assert (len(added), count(added)) == (256, 797_184)


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        (dict(text=(True, True)), "3 levels of channels need as many entries of text and heads, found 2 and 3"),
        (dict(heads=(2, 3, 2)), "width 16 is not a multiple of 3 heads and of 4 groups"),
        (dict(groups=3), "width 8 is not a multiple of 2 heads and of 3 groups"),
    ],
)
def test_a_shape_that_cannot_be(fields, words):
    with pytest.raises(ValueError, match=words):
        replace(TINY, **fields)


# what it accepts


@pytest.mark.parametrize(("height", "width"), [(4, 4), (8, 12), (20, 4)])
def test_any_side_that_can_be_downsampled_twice(height, width):
    x, t, cond = inputs(height=height, width=width)
    assert tiny()(x, t, cond).shape == x.shape


@pytest.mark.parametrize("shape", [(2, 4, 6, 8), (2, 4, 8, 10), (2, 9, 8, 8), (4, 8, 8)])
def test_an_x_that_does_not_fit(shape):
    _, t, cond = inputs()
    with pytest.raises(ValueError, match=r"x must be \(B, 4, H, W\), H and W multiples of 4, found \(" + str(shape[0])):
        tiny()(torch.zeros(shape), t, cond)


@pytest.mark.parametrize("shape", [(2,), (2, 5, 7), (3, 5, 6), (2, 6)])
def test_a_cond_that_does_not_fit(shape):
    x, t, _ = inputs()
    with pytest.raises(ValueError, match=r"cond must be text states \(2, L, 6\), found \(" + str(shape[0])):
        tiny()(x, t, torch.zeros(shape))


def test_an_inpainting_model_takes_nine_channels_and_gives_four():
    model = tiny(in_channels=9)
    x, t, cond = inputs(channels=9)
    out = model(x, t, cond)
    assert out.shape == (2, *model.latent_shape)
    for part in (slice(0, 4), slice(4, 5), slice(5, 9)):  # noisy latent, mask, masked image: it reads all three
        less = x.clone()
        less[:, part] = 0
        assert (model(less, t, cond) - out).abs().max() > 1e-3
    with pytest.raises(ValueError, match=r"x must be \(B, 9, H, W\)"):
        model(x[:, :4], t, cond)


@torch.no_grad()
def test_samplers_draw_from_it():
    model, cond = tiny(), inputs(batch=3)[2]
    null = torch.zeros(5, 6)
    latents = sample_latents(
        batched_cfg(model, cond, null, 3.0), range(3), model.latent_shape, Schedule.linear(), steps=2, batch=2
    )
    assert latents.shape == (3, 4, 8, 8) and latents.isfinite().all()


# what depends on what


@torch.no_grad()
def test_samples_do_not_mix():
    model, (x, t, cond) = tiny(), inputs()
    alone = torch.cat([model(x[i : i + 1], t[i : i + 1], cond[i : i + 1]) for i in range(2)])
    torch.testing.assert_close(model(x, t, cond), alone, atol=1e-5, rtol=0)


@torch.no_grad()
def test_the_output_depends_on_step_and_text_but_not_on_the_order_of_the_text():
    """Cross-attention knows no positions: the text encoder puts them into the states."""
    model, (x, t, cond) = tiny(), inputs()
    out = model(x, t, cond)
    assert (model(x, t + 300, cond) - out).abs().max() > 1e-2 and (model(x, t, -cond) - out).abs().max() > 1e-2
    torch.testing.assert_close(model(x, t, cond.flip(1)), out, atol=1e-5, rtol=0)
    torch.testing.assert_close(model(x, t.double(), cond), out, atol=0, rtol=0)


def test_every_parameter_learns():
    model = tiny()
    model(*inputs()).square().mean().backward()
    idle = [name for name, p in model.named_parameters() if p.grad is None or not p.grad.any()]
    assert idle == []


def test_the_middle_has_a_transformer_and_the_last_level_none():
    model = tiny()
    assert [len(level.attentions) for level in model.down] == [1, 1, 0] and len(model.mid.attentions) == 1
    assert [len(level.attentions) for level in model.up] == [0, 2, 2]


def test_widths_of_the_way_up_of_stable_diffusion():
    widths = [[resnet.conv1.in_channels for resnet in level.resnets] for level in on_meta("SD-1").up]
    assert widths == [[2560, 2560, 2560], [2560, 2560, 1920], [1920, 1280, 960], [960, 640, 640]]


@torch.no_grad()
@pytest.mark.parametrize("upcast", [False, True])
def test_in_bfloat16_it_is_the_same_model(upcast):
    model, (x, t, cond) = tiny(upcast=upcast), inputs()
    out = model(x, t, cond)
    with torch.autocast("cpu", torch.bfloat16):
        autocast = model(x, t, cond)
    half = model.bfloat16()(x.bfloat16(), t, cond.bfloat16())
    assert autocast.dtype == half.dtype == torch.bfloat16
    for other in (autocast, half):
        assert (other - out).square().mean().sqrt() < 0.02 * out.std()


# residuals


@torch.no_grad()
def test_residuals_are_added_to_the_skips_in_their_order_and_to_the_middle():
    model, (x, t, cond) = tiny(), inputs()
    shapes = [(8, 8), (8, 8), (8, 4), (16, 4), (16, 2), (16, 2), (16, 2)]  # channels, side; conv_in first, middle last
    zeros = [torch.zeros(2, channels, side, side) for channels, side in shapes]
    out = model(x, t, cond)
    assert torch.equal(model(x, t, cond, zeros), out)
    for i in range(len(zeros)):
        changed = model(x, t, cond, [*zeros[:i], zeros[i] + 1, *zeros[i + 1 :]])
        assert (changed - out).abs().max() > 1e-4, i


@torch.no_grad()
def test_a_residual_counts_on_the_way_up_only():
    """Minus the skip itself as its residual: the decoder reads zeros there, the encoder the features as they were."""
    model, (x, t, cond) = tiny(), inputs()
    seen = []
    model.up[-1].resnets[-1].register_forward_pre_hook(lambda layer, args: seen.append(args[0]))
    model(x, t, cond)
    skip = seen[0][:, 8:]  # the last row up reads what conv_in left
    assert torch.equal(skip, model.conv_in(x))
    rest = [torch.zeros(1, channels, 1, 1) for channels in (8, 8, 16, 16, 16, 16)]
    model(x, t, cond, [-skip, *rest])
    assert torch.equal(seen[1][:, :8], seen[0][:, :8]) and not seen[1][:, 8:].any()


def test_four_levels_of_two_rows_take_thirteen_residuals():
    model = tiny(channels=(8, 8, 8, 8), text=(True, True, True, False), heads=(2, 2, 2, 2), layers=2)
    x, t, cond = inputs()
    assert model(x, t, cond, [torch.zeros(())] * 13).shape == x.shape
    with pytest.raises(ValueError, match="expected 12 residuals and one for the middle, found 12"):
        model(x, t, cond, [torch.zeros(())] * 12)


# the start


def test_a_new_model_answers_zero_and_only_its_last_layer_learns():
    model, (x, t, cond) = UNet(TINY), inputs()
    out = model(x, t, cond)
    assert not out.any()
    (out - torch.randn_like(x)).square().mean().backward()
    learns = {name for name, p in model.named_parameters() if p.grad.any()}
    assert learns == {"conv_out.weight", "conv_out.bias"}


def test_a_new_residual_block_adds_nothing():
    layer = UNet(TINY).down[0].resnets[0]
    x = torch.randn(2, 8, 4, 4)
    assert torch.equal(layer(x, torch.randn(2, 32)), x)


# the blocks


@torch.no_grad()
def test_linear_and_convolution_around_a_transformer_are_the_same_map():
    torch.manual_seed(0)
    by_convolution = SpatialTransformer(8, 6, 2, 4, linear=False, upcast=False)
    by_linear = SpatialTransformer(8, 6, 2, 4, linear=True, upcast=False)
    state = by_convolution.state_dict()
    by_linear.load_state_dict({name: w.flatten(1) if w.dim() == 4 else w for name, w in state.items()})
    x, cond = torch.randn(2, 8, 3, 5), torch.randn(2, 4, 6)
    torch.testing.assert_close(by_linear(x, cond), by_convolution(x, cond), atol=1e-6, rtol=0)


@torch.no_grad()
def test_the_first_half_of_geglu_is_the_value():
    layer = GEGLU(2, 3)
    layer.proj.weight.zero_()
    layer.proj.bias.copy_(torch.tensor([1.0, 2.0, 3.0, 0.0, 1.0, -1.0]))
    expected = torch.tensor([0.0, 2 * 0.8413447, -3 * 0.1586553])  # gelu(1) = Phi(1), gelu(-1) = -Phi(-1)
    torch.testing.assert_close(layer(torch.randn(1, 1, 2))[0, 0], expected, atol=1e-6, rtol=0)


@torch.no_grad()
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_upcast_attention_is_that_of_float32_and_keeps_the_dtype(dtype):
    torch.manual_seed(0)
    layer = Attention(16, 6, heads=2, upcast=True).to(dtype)
    layer.to_out[0] = nn.Identity()
    x, context = torch.randn(1, 9, 16, dtype=dtype), torch.randn(1, 5, 6, dtype=dtype)
    projected = layer.to_q(x), layer.to_k(context), layer.to_v(context)
    q, k, v = (y.float().unflatten(2, (2, 8)).transpose(1, 2) for y in projected)
    out = layer(x, context)
    expected = reference(q, k, v).transpose(1, 2).flatten(2)
    assert out.dtype == dtype
    torch.testing.assert_close(out, expected.to(dtype), atol=1e-6, rtol=torch.finfo(dtype).eps)


@torch.no_grad()
def test_the_timestep_enters_a_residual_block_between_its_convolutions():
    """With conv1 = 0 the second half sees the projected timestep alone, the same at every position."""
    torch.manual_seed(0)
    layer = TimeResBlock(4, 8, 6, 2)
    layer.conv1.weight.zero_(), layer.conv1.bias.zero_()
    layer.norm2 = nn.Identity()
    emb = torch.randn(2, 6)
    told = torch.nn.functional.silu(layer.time_emb_proj(emb))[:, :, None, None].expand(2, 8, 3, 3)
    x = torch.randn(2, 4, 3, 3)
    torch.testing.assert_close(layer(x, emb), layer.shortcut(x) + layer.conv2(told), atol=1e-6, rtol=0)

"""The ControlNet: counts as published, no effect at the start, what it tells the UNet, and guidance with a hint."""

from dataclasses import asdict, replace
from functools import partial

import pytest
import torch

import adapters
from sampling import cfg, conditional
from unet import ControlConfig, ControlledText, ControlNet, ControlNets, TextConfig, TextEncoder, UNet, UNetConfig
from unet.control import HintEmbedder
from unet.sizes import UNETS as SIZES

TINY = UNetConfig(channels=(8, 16), text=(True, False), heads=(2, 2), layers=1, text_width=6, groups=2, input_size=4)


def filled(model, seed=0):
    """Random values everywhere, as if it had been trained."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.copy_(0.2 * torch.randn(parameter.shape, generator=generator))
    return model.eval()


def unet(**fields):
    return filled(UNet(replace(TINY, **fields)))


def text(width=6):
    return filled(TextEncoder(TextConfig(20, width=width, layers=1, heads=2, max_length=5)))


def inputs(batch=2, factor=4, hint_channels=3):
    generator = torch.Generator().manual_seed(1)
    x, cond = torch.randn(batch, 4, 4, 6, generator=generator), torch.randn(batch, 5, 6, generator=generator)
    hint = torch.rand(batch, hint_channels, 4 * factor, 6 * factor, generator=generator)
    return x, torch.arange(batch) * 400 + 17, cond, hint


def controlled(**fields):
    """A UNet with a trained ControlNet, and a text encoder."""
    model = unet()
    return ControlledText(model, text(), filled(ControlNet.of(model, factor=4, **fields), seed=2))


def count(module):
    return sum(parameter.numel() for parameter in module.parameters())


# the published size


def test_counts_for_stable_diffusion():
    """The numbers of the published files: 340 tensors, and a mask of one channel saves 2 * 16 * 3 * 3."""
    with torch.device("meta"):
        model, mask = ControlNet(ControlConfig()), ControlNet(ControlConfig(hint_channels=1))
    assert (len(model.state_dict()), count(model)) == (340, 361_279_120)
    assert count(model.hint) == 1_086_480
    assert count(model.zero) + count(model.zero_mid) == 11_479_680
    assert count(mask) == 361_278_832
    assert [layer.out_channels for layer in model.zero] == [320] * 4 + [640] * 3 + [1280] * 5
    assert model.hint_factor == 8


@pytest.mark.parametrize(("factor", "widths"), [(1, (16,)), (2, (16, 32)), (4, (16, 32, 96)), (8, (16, 32, 96, 256))])
def test_the_widths_say_how_often_the_hint_is_downsampled(factor, widths):
    control = ControlNet.of(unet(), hint_channels=1, factor=factor)
    assert control.config.hint_widths == widths and control.hint_factor == factor
    x, t, cond, hint = inputs(factor=factor, hint_channels=1)
    assert control.hint(hint).shape == (2, 8, *x.shape[2:])
    assert [tuple(r.shape) for r in control(x, t, cond, hint)] == [
        (2, 8, 4, 6),
        (2, 8, 4, 6),
        (2, 8, 2, 3),
        (2, 16, 2, 3),
        (2, 16, 2, 3),
    ]


@torch.no_grad()
def test_the_small_unet_reads_hints_as_large_as_its_images():
    """64 pixels, latents of 16: its autoencoder's factor is 4."""
    control = ControlNet.of(UNet(SIZES["UNet-T"]), factor=4)
    residuals = control(torch.zeros(1, 6, 16, 16), torch.zeros(1), torch.zeros(1, 3, 128), torch.zeros(1, 3, 64, 64))
    assert [tuple(r.shape[1:3]) for r in residuals] == [
        (64, 16),
        (64, 16),
        (64, 8),
        (96, 8),
        (96, 4),
        (128, 4),
        (128, 4),
    ]
    assert count(control.hint) == 448 + 2_320 + 4_640 + 9_248 + 27_744 + 55_360


def test_the_hint_is_read_by_convolutions_of_three():
    """Two a downsampling, the second of stride 2, a SiLU after each but the last."""
    reads = filled(HintEmbedder(ControlConfig(channels=(4,), text=(True,), heads=(1,), groups=1, hint_widths=(2, 3))))
    hint = torch.rand(1, 3, 6, 6)
    silu = torch.nn.functional.silu
    h = silu(reads.conv_in(hint))
    h = silu(torch.nn.functional.conv2d(h, reads.blocks[0].weight, reads.blocks[0].bias, padding=1))
    h = silu(torch.nn.functional.conv2d(h, reads.blocks[1].weight, reads.blocks[1].bias, stride=2, padding=1))
    expected = torch.nn.functional.conv2d(h, reads.conv_out.weight, reads.conv_out.bias, padding=1)
    torch.testing.assert_close(reads(hint), expected)
    assert expected.shape == (1, 4, 3, 3)


# the start


@torch.no_grad()
def test_a_new_controlnet_changes_no_bit():
    base = unet()
    control = ControlNet.of(base, factor=4)
    x, t, cond, hint = inputs()
    residuals = control(x, t, cond, hint)
    assert not any(residual.any() for residual in residuals)
    assert torch.equal(base(x, t, cond, residuals), base(x, t, cond))
    assert torch.equal(ControlledText(base, text(), control)(x, t, cond, hint), base(x, t, cond))


def test_it_starts_as_a_copy_of_its_own():
    base = unet().bfloat16().requires_grad_(False)
    control = ControlNet.of(base, factor=4)
    theirs, ours = base.state_dict(), control.state_dict()
    shared = [name for name in ours if not name.startswith(("hint.", "zero"))]
    assert shared == [name for name in theirs if not name.startswith(("up.", "norm_out.", "conv_out."))]
    assert all(torch.equal(ours[name], theirs[name]) for name in shared)
    assert {p.dtype for p in control.parameters()} == {torch.bfloat16}
    assert all(p.requires_grad for p in control.parameters())
    assert not {p.data_ptr() for p in control.parameters()} & {p.data_ptr() for p in base.parameters()}


def test_first_the_zero_convolutions_learn_then_everything():
    model = ControlledText(unet(), text(), ControlNet.of(unet(), factor=4))
    adapters.attach(model, "control.full")
    batch = inputs()
    model(*batch).square().mean().backward()
    learns = {name for name, p in model.named_parameters() if p.grad is not None and p.grad.any()}
    zero = {name for name, _ in model.named_parameters() if name.startswith("control.zero")}
    assert learns == zero
    filled(model.control, seed=2)
    model(*batch).square().mean().backward()
    assert all(p.grad.any() for p in model.control.parameters())
    assert all(p.grad is None for part in (model.unet, model.text) for p in part.parameters())


def test_a_controlnet_that_is_no_copy_answers_zero_too():
    control = ControlNet(ControlConfig(**asdict(TINY), hint_widths=(4,)))
    assert not any(residual.any() for residual in control(*inputs(factor=1)))


# what it says


@torch.no_grad()
def test_the_residuals_by_hand():
    """A UNet's encoder over conv_in(x) + hint, read by hooks at the inputs of the zero convolutions."""
    model, (x, t, cond, hint) = controlled(), inputs()
    twin = unet()
    for name in ("time_embed", "conv_in", "down", "mid"):
        getattr(twin, name).load_state_dict(getattr(model.control, name).state_dict())
    told, left = model.control.hint(hint), []
    twin.conv_in.register_forward_hook(lambda layer, args, out: out + told)
    twin.conv_in.register_forward_hook(lambda layer, args, out: left.append(out))
    twin.down[0].register_forward_hook(lambda layer, args, out: left.extend(out))
    twin.down[1].register_forward_hook(lambda layer, args, out: left.extend(out))
    twin.mid.register_forward_hook(lambda layer, args, out: left.append(out))
    twin(x, t, cond)
    residuals = model.control(x, t, cond, hint)
    for residual, features, zero in zip(residuals, left, [*model.control.zero, model.control.zero_mid], strict=True):
        assert torch.equal(residual, zero(features))
    assert torch.equal(model(x, t, cond, hint), model.unet(x, t, cond, residuals))


@torch.no_grad()
def test_strength_scales_the_residuals():
    model, batch = controlled(), inputs()
    for whole, half in zip(model.control(*batch), model.control(*batch, strength=0.5)):
        assert torch.equal(half, 0.5 * whole)
    out = model(*batch)
    plain = model.unet(*batch[:3])
    assert torch.equal(model(*batch, strength=0.0), plain) and torch.equal(model(*batch[:3]), plain)
    assert (model(*batch, strength=0.5) - out).abs().max() > 1e-3


@torch.no_grad()
def test_several_controlnets_add_up_each_with_its_strength():
    """A mask and a picture, behind one another on channels."""
    model = unet()
    mask, picture = (filled(ControlNet.of(model, channels, factor=4), seed=channels) for channels in (1, 3))
    x, t, cond, hint = inputs(hint_channels=4)
    both = ControlNets([mask, picture], [0.5, 2.0])
    a, b = mask(x, t, cond, hint[:, :1]), picture(x, t, cond, hint[:, 1:])
    expected = [0.5 * p + 2.0 * q for p, q in zip(a, b)]
    assert all(torch.allclose(found, wanted) for found, wanted in zip(both(x, t, cond, hint), expected, strict=True))
    out = ControlledText(model, text(), both)(x, t, cond, hint)
    torch.testing.assert_close(out, model(x, t, cond, expected))
    with pytest.raises(ValueError, match="the ControlNet belongs to another UNet"):
        ControlledText(model, text(), ControlNets([mask, ControlNet.of(unet(channels=(8, 24)), factor=4)], [1, 1]))


@torch.no_grad()
def test_the_output_depends_on_the_hint_at_its_place():
    """Level 0 of a UNet without text blocks is local: a corner of the hint leaves the far first skip as it is."""
    model, (x, t, cond, hint) = controlled(), inputs()
    other = hint.clone()
    other[..., :4, :4] = 0
    changed = (model.control(x, t, cond, other)[0] - model.control(x, t, cond, hint)[0]).abs().amax(1)
    assert changed[:, 0, 0].min() > 1e-4 and not changed[:, 3, 5].any()


@torch.no_grad()
def test_a_whole_model_reads_token_ids_or_states():
    model, (x, t, _, hint) = controlled(), inputs()
    tokens = torch.tensor([[0, 3, 1, 1, 1], [0, 4, 5, 1, 1]])
    out = model(x, t, tokens, hint)
    assert torch.equal(out, model(x, t, model.text(tokens), hint))
    assert (out - model(x, t, tokens)).abs().max() > 1e-3
    assert model.latent_shape == (4, 4, 4)


# guidance


@torch.no_grad()
def test_guidance_keeps_the_hint_in_both_halves():
    model, (x, t, cond, hint) = controlled(), inputs()
    null = torch.zeros(5, 6)
    out = cfg(partial(model, hint=hint), cond, null, 3.0)(x, t)
    yes, no = (
        conditional(partial(model, hint=hint), cond)(x, t),
        conditional(partial(model, hint=hint), null.expand_as(cond))(x, t),
    )
    torch.testing.assert_close(out, no + 3.0 * (yes - no), atol=1e-5, rtol=0)
    assert (out - cfg(model, cond, null, 3.0)(x, t)).abs().max() > 1e-2


# what it refuses


@pytest.mark.parametrize("shape", [(2, 3, 8, 12), (2, 1, 16, 24), (3, 3, 16, 24), (3, 16, 24)])
def test_a_hint_that_does_not_fit(shape):
    model, (x, t, cond, _) = controlled(), inputs()
    with pytest.raises(ValueError, match=r"hint must be \(2, 3, 16, 24\), 4 times as large as x, found \("):
        model.control(x, t, cond, torch.zeros(shape))


def test_hints_that_do_not_divide_the_batch():
    model, (x, t, cond, hint) = controlled(), inputs(batch=3)
    for wrong in (hint[:2], torch.cat([hint, hint])):
        with pytest.raises(ValueError, match=rf"hint must be \(3, 3, 16, 24\).*found \({len(wrong)}, 3, 16, 24\)"):
            model(x, t, cond, wrong)


def test_an_x_or_text_that_does_not_fit():
    model, (x, t, cond, hint) = controlled(), inputs()
    with pytest.raises(ValueError, match=r"x must be \(B, 4, H, W\)"):
        model.control(torch.cat([x, x], 1), t, cond, hint)
    with pytest.raises(ValueError, match=r"cond must be text states \(2, L, 6\)"):
        model.control(x, t, cond[..., :5], hint)


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        (dict(text_width=8), "its text_width is 8, this UNet's 6"),
        (dict(in_channels=9), "its in_channels is 9, this UNet's 4"),
        (dict(channels=(8, 24)), r"its channels is \(8, 24\), this UNet's \(8, 16\)"),
        (dict(layers=2), "its layers is 2, this UNet's 1"),
    ],
)
def test_a_controlnet_of_another_unet(fields, words):
    with pytest.raises(ValueError, match=f"the ControlNet belongs to another UNet: {words}"):
        ControlledText(unet(), text(), ControlNet.of(unet(**fields), factor=1))


def test_shapes_that_cannot_be():
    for factor in (3, 6, 16):
        with pytest.raises(ValueError, match=f"factor must be 1, 2, 4 or 8 .*, found {factor}"):
            ControlNet.of(unet(), factor=factor)
    with pytest.raises(ValueError, match="hint_widths needs at least one width, found none"):
        ControlConfig(hint_widths=())
    with pytest.raises(ValueError, match="width 320 is not a multiple of 7 heads"):
        ControlConfig(heads=(7, 8, 8, 8))

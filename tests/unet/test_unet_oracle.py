"""An independent oracle: the UNet of diffusers. The same random weights, the same outputs and gradients."""

import pytest
import torch

from unet.model import UNet, UNetConfig
from unet.row import split_row
from unet.sizes import UNETS as SIZES

diffusers = pytest.importorskip("diffusers")

FOUR = dict(channels=(32, 64, 64, 64), text_width=32, groups=8, input_size=16)
CONFIGS = {
    "like SD 1": UNetConfig(heads=(4, 4, 4, 4), **FOUR),
    "like SD 2": UNetConfig(heads=(2, 4, 4, 8), linear=True, upcast=True, **FOUR),
    "inpainting": UNetConfig(heads=(4, 4, 4, 4), in_channels=9, **FOUR),
    "like XL": UNetConfig(
        channels=(32, 64), text=(1, 2), heads=(2, 4), text_width=32, pooled=24, linear=True, groups=8, input_size=16
    ),
    "UNet-T": SIZES["UNet-T"],
}


def oracle(config):
    """diffusers' model of the same shape; its attention_head_dim is the number of heads."""
    vector = config.pooled + 6 * 256
    of_xl = dict(addition_embed_type="text_time", addition_time_embed_dim=256)
    of_xl = of_xl | {"projection_class_embeddings_input_dim": vector} if config.pooled else {}
    return diffusers.UNet2DConditionModel(
        sample_size=config.input_size,
        in_channels=config.in_channels,
        out_channels=config.out_channels,
        block_out_channels=config.channels,
        layers_per_block=config.layers,
        cross_attention_dim=config.text_width,
        down_block_types=["CrossAttnDownBlock2D" if text else "DownBlock2D" for text in config.text],
        up_block_types=["CrossAttnUpBlock2D" if text else "UpBlock2D" for text in config.text[::-1]],
        attention_head_dim=config.heads,
        use_linear_projection=config.linear,
        upcast_attention=config.upcast,
        norm_num_groups=config.groups,
        transformer_layers_per_block=[depth or 1 for depth in config.text],
        **of_xl,
    )


def their_name(name):
    """Our name of a parameter -> diffusers'."""
    first = {
        "time_embed.0": "time_embedding.linear_1",
        "time_embed.2": "time_embedding.linear_2",
        "vector_embed.0": "add_embedding.linear_1",
        "vector_embed.2": "add_embedding.linear_2",
        "mid.": "mid_block.",
        "down.": "down_blocks.",
        "up.": "up_blocks.",
        "norm_out.": "conv_norm_out.",
    }
    for ours, theirs in first.items():
        name = theirs + name.removeprefix(ours) if name.startswith(ours) else name
    for way in ("down", "up"):
        name = name.replace(f".{way}sample.", f".{way}samplers.0.conv.")
    return name.replace(".shortcut.", ".conv_shortcut.")


@pytest.fixture(scope="module", params=CONFIGS)
def both(request):
    """(theirs, ours) with the same weights, none of them 0 or 1."""
    config = CONFIGS[request.param]
    torch.manual_seed(0)
    theirs, ours = oracle(config).eval(), UNet(config).eval()
    with torch.no_grad():
        for name, parameter in ours.named_parameters():
            other = theirs.get_parameter(their_name(name))
            other += 0.02 * torch.randn(other.shape)  # norms start at exactly 1 and 0, which would hide a swap
            parameter.copy_(other)
    assert len(theirs.state_dict()) == len(ours.state_dict())
    return theirs, ours


def inputs(config, height, width, length=7):
    generator = torch.Generator().manual_seed(1)
    x = torch.randn(2, config.in_channels, height, width, generator=generator)
    cond = torch.randn(2, length, config.text_width, generator=generator)
    if config.pooled:  # a row of states, pooled text and sizes
        cond = torch.cat([cond.flatten(1), torch.randn(2, config.pooled, generator=generator), SIX], dim=1)
    return x, torch.tensor([3, 700]), cond


SIX = torch.tensor([[1024.0, 832, 0, 96, 1024, 1024], [600, 400, 7, 0, 832, 1216]])


def theirs_of(theirs, config, x, t, cond, **options):
    """diffusers' output; it takes the three parts of XL's row apart."""
    if config.pooled:
        cond, pooled, sizes = split_row(cond, config.text_width, config.pooled)
        options["added_cond_kwargs"] = {"text_embeds": pooled, "time_ids": sizes}
    return theirs(x, t, cond, **options).sample


@torch.no_grad()
@pytest.mark.parametrize(("height", "width"), [(16, 16), (8, 24)])
def test_forward(both, height, width):
    theirs, ours = both
    x, t, cond = inputs(ours.config, height, width)
    expected = theirs_of(theirs, ours.config, x, t, cond)
    assert expected.std() > 0.1
    torch.testing.assert_close(ours(x, t, cond), expected, atol=1e-5, rtol=0)


def test_norms_have_the_same_eps(both):
    """1e-5, and 1e-6 where a transformer begins: too near for the outputs to tell."""
    theirs, ours = both
    norms = {name: layer for name, layer in ours.named_modules() if "norm" in name.rpartition(".")[2]}
    for name, layer in norms.items():
        assert layer.eps == theirs.get_submodule(their_name(f"{name}.").removesuffix(".")).eps, name
    assert {layer.eps for layer in norms.values()} == {1e-5, 1e-6}


def test_gradients(both):
    """Of a loss, with respect to both inputs and to every parameter."""
    gradients = []
    for model in both:
        x, t, cond = inputs(both[1].config, 16, 16)  # the middle is 2 x 2: one token attends to itself alone
        x.requires_grad_(), cond.requires_grad_()
        model.zero_grad()
        out = model(x, t, cond) if model is both[1] else theirs_of(model, both[1].config, x, t, cond)
        (out - x[:, : out.shape[1]].detach()).square().mean().backward()
        gradients.append({"x": x.grad, "cond": cond.grad} | {name: p.grad for name, p in model.named_parameters()})
    theirs, ours = gradients
    for name, gradient in ours.items():
        expected = theirs[their_name(name)]
        assert expected.any(), name
        assert torch.allclose(gradient, expected, atol=1e-6, rtol=1e-3), name


@torch.no_grad()
def test_residuals(both):
    """Those of a ControlNet: diffusers takes the ones of the skips and the one of the middle apart."""
    theirs, ours = both
    c, generator = ours.config, torch.Generator().manual_seed(2)
    x, t, cond = inputs(c, 8, 8)
    shapes, last = [(c.channels[0], 8)], len(c.channels) - 1
    for level, channels in enumerate(c.channels):
        shapes += [(channels, 8 >> level)] * c.layers + [(channels, 8 >> level + 1)] * (level < last)
    shapes += shapes[-1:]
    residuals = [torch.randn(2, channels, side, side, generator=generator) for channels, side in shapes]
    options = dict(down_block_additional_residuals=residuals[:-1], mid_block_additional_residual=residuals[-1])
    expected = theirs_of(theirs, c, x, t, cond, **options)
    out = ours(x, t, cond, residuals)
    torch.testing.assert_close(out, expected, atol=1e-5, rtol=0)
    assert (out - ours(x, t, cond)).std() > 0.01


@pytest.mark.parametrize("name", SIZES)
def test_every_tensor_of_every_size(name):
    with torch.device("meta"):
        theirs, ours = oracle(SIZES[name]).state_dict(), UNet(SIZES[name]).state_dict()
    assert {their_name(key): tensor.shape for key, tensor in ours.items()} == {
        key: tensor.shape for key, tensor in theirs.items()
    }

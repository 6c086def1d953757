"""Every layout at full size on the meta device, and every way in which a file can fail to fit one."""

import pytest
import torch

from dit import SIZES, DiTConfig
from unet import VAEConfig
from weights.layouts.exchange import LAYOUTS, file_names, fill, spread
from weights.layouts.kinds import empty


@pytest.fixture(scope="module")
def xl():
    return empty("dit", DiTConfig(**SIZES["DiT-XL/2"], input_size=32)).state_dict()


@pytest.fixture(scope="module")
def sd_vae():
    return empty("vae", VAEConfig()).state_dict()


def counts(tensors):
    return len(tensors), sum(tensor.numel() for tensor in tensors.values())


def test_dit_xl_counts(xl):
    official = spread(xl, LAYOUTS["dit-official"], 28)
    assert counts(official) == (292, 675_129_632)
    assert official.keys() == xl.keys()
    assert counts(spread(xl, LAYOUTS["dit-diffusers"], 28)) == (538, 749_826_464)


@pytest.mark.parametrize("layout", ["vae-compvis", "vae-diffusers", "vae-diffusers-old", "vae-in-sd"])
def test_vae_counts(sd_vae, layout):
    assert counts(spread(sd_vae, LAYOUTS[layout], 4)) == (248, 83_653_863)


def test_dit_diffusers_names(xl):
    tensors = spread(xl, LAYOUTS["dit-diffusers"], 28)
    assert tensors["transformer_blocks.27.attn1.to_v.weight"].shape == (1152, 1152)
    assert tensors["transformer_blocks.27.norm1.emb.class_embedder.embedding_table.weight"].shape == (1001, 1152)
    assert tensors["transformer_blocks.0.norm1.emb.timestep_embedder.linear_1.weight"].shape == (1152, 256)
    assert {"pos_embed.proj.weight", "proj_out_1.bias", "transformer_blocks.3.ff.net.0.proj.bias"} <= tensors.keys()


def test_compvis_names_count_the_decoder_backwards(sd_vae):
    tensors = spread(sd_vae, LAYOUTS["vae-compvis"], 4)
    assert tensors["decoder.up.0.block.0.nin_shortcut.weight"].shape == (128, 256, 1, 1)
    assert tensors["encoder.mid.attn_1.q.weight"].shape == (512, 512, 1, 1)
    assert "decoder.up.3.upsample.conv.weight" in tensors
    assert "decoder.up.0.upsample.conv.weight" not in tensors
    assert "encoder.down.2.downsample.conv.bias" in tensors


@pytest.mark.parametrize(
    ("ours", "layout", "theirs"),
    [
        ("decoder.up.1.res.2.shortcut.weight", "vae-compvis", "decoder.up.2.block.2.nin_shortcut.weight"),
        ("decoder.up.1.res.2.shortcut.weight", "vae-diffusers", "decoder.up_blocks.1.resnets.2.conv_shortcut.weight"),
        ("decoder.mid.1.to_out.bias", "vae-diffusers", "decoder.mid_block.attentions.0.to_out.0.bias"),
        ("decoder.mid.1.to_out.bias", "vae-diffusers-old", "decoder.mid_block.attentions.0.proj_attn.bias"),
        ("encoder.mid.1.to_q.bias", "vae-diffusers-old", "encoder.mid_block.attentions.0.query.bias"),
        ("encoder.mid.1.norm.bias", "vae-compvis", "encoder.mid.attn_1.norm.bias"),
        ("quant_conv.bias", "vae-in-sd", "first_stage_model.quant_conv.bias"),
        ("encoder.norm_out.bias", "vae-diffusers", "encoder.conv_norm_out.bias"),
    ],
)
def test_single_names(ours, layout, theirs):
    assert file_names(ours, LAYOUTS[layout], 4) == [theirs]


@pytest.mark.parametrize("layout", [name for name in LAYOUTS if name.startswith("vae")])
def test_vae_round_trip(tiny_vae, layout):
    state, layout = tiny_vae.state_dict(), LAYOUTS[layout]
    back = fill(spread(state, layout, 3), shapes(tiny_vae), layout, 3, "w")
    assert back.keys() == state.keys()
    assert all(torch.equal(back[name], state[name]) for name in state)


@pytest.mark.parametrize("layout", ["dit-native", "dit-official", "dit-diffusers"])
def test_dit_round_trip(tiny_dit, layout):
    state, held = tiny_dit.state_dict(), layout != "dit-diffusers"
    back = fill(spread(state, LAYOUTS[layout], 2), shapes(tiny_dit), LAYOUTS[layout], 2, "w")
    assert back.keys() == state.keys() - ({"pos_embed"} if not held else set())
    assert all(torch.equal(back[name], state[name]) for name in back)


def shapes(model):
    return {name: tuple(tensor.shape) for name, tensor in model.state_dict().items()}


def test_attention_may_be_stored_in_any_rank(tiny_vae):
    layout, state = LAYOUTS["vae-compvis"], tiny_vae.state_dict()
    tensors = spread(state, layout, 3)
    tensors["encoder.mid.attn_1.q.weight"] = tensors["encoder.mid.attn_1.q.weight"][..., 0]  # a 1-d convolution
    tensors["encoder.mid.attn_1.k.weight"] = tensors["encoder.mid.attn_1.k.weight"][..., 0, 0]
    back = fill(tensors, shapes(tiny_vae), layout, 3, "w")
    assert torch.equal(back["encoder.mid.1.to_q.weight"], state["encoder.mid.1.to_q.weight"])


def test_one_error_counts_everything(tiny_vae):
    tensors = spread(tiny_vae.state_dict(), LAYOUTS["vae-compvis"], 3)
    for name in [name for name in tensors if "mid.attn_1.q" in name]:
        del tensors[name]
    tensors |= {"surprise": torch.ones(1), "quant_conv.bias": torch.ones(2), "loss.logvar": torch.ones(())}
    with pytest.raises(ValueError) as error:
        fill(tensors, shapes(tiny_vae), LAYOUTS["vae-compvis"], 3, "w.ckpt")
    assert str(error.value) == (
        f"w.ckpt: expected {len(tiny_vae.state_dict())} tensors of our vae, found "
        "4 missing (encoder.mid.attn_1.q.weight; encoder.mid.attn_1.q.bias; decoder.mid.attn_1.q.weight; ...), "
        "1 unknown (surprise), 1 of another shape (quant_conv.bias expected [8], found [2])"
    )


def test_embedders_that_differ_by_block_are_refused(tiny_dit):
    tensors = spread(tiny_dit.state_dict(), LAYOUTS["dit-diffusers"], 2)
    name = "transformer_blocks.1.norm1.emb.class_embedder.embedding_table.weight"
    tensors[name] = tensors[name] + 0.25
    with pytest.raises(ValueError, match=rf"expected {name} equal .* found a difference of 0\.25"):
        fill(tensors, shapes(tiny_dit), LAYOUTS["dit-diffusers"], 2, "w")
    tensors[name] = tensors[name][:3]
    with pytest.raises(ValueError, match="found a difference of its shape"):
        fill(tensors, shapes(tiny_dit), LAYOUTS["dit-diffusers"], 2, "w")

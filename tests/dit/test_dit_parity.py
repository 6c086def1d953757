"""An independent oracle: the DiT of diffusers. Same weights, same numbers, once its two other constants are chosen."""

from functools import partial

import pytest
import torch

import dit.embed
from dit import DiT, DiTConfig
from ops import timestep_embedding

pytest.importorskip("diffusers")
from diffusers import DiTTransformer2DModel  # noqa: E402
from diffusers.models.embeddings import get_timestep_embedding  # noqa: E402

THEIR_SINUSOID = partial(timestep_embedding, divisor=127)


def oracle_weights(ours):
    """Our state dict under the oracle's names: it stores the embedders once per block, and q, k, v apart."""
    theirs = {f"pos_embed.proj.{kind}": ours[f"x_embedder.proj.{kind}"] for kind in ("weight", "bias")}
    depth = 1 + max(int(key.split(".")[1]) for key in ours if key.startswith("blocks."))
    for i in range(depth):
        to = f"transformer_blocks.{i}."
        theirs[to + "norm1.emb.class_embedder.embedding_table.weight"] = ours["y_embedder.embedding_table.weight"]
        for kind in ("weight", "bias"):
            pairs = {
                "norm1.emb.timestep_embedder.linear_1": "t_embedder.mlp.0",
                "norm1.emb.timestep_embedder.linear_2": "t_embedder.mlp.2",
                "norm1.linear": f"blocks.{i}.adaLN_modulation.1",
                "attn1.to_out.0": f"blocks.{i}.attn.proj",
                "ff.net.0.proj": f"blocks.{i}.mlp.fc1",
                "ff.net.2": f"blocks.{i}.mlp.fc2",
            }
            theirs |= {f"{to}{a}.{kind}": ours[f"{b}.{kind}"] for a, b in pairs.items()}
            for name, part in zip("qkv", ours[f"blocks.{i}.attn.qkv.{kind}"].chunk(3), strict=True):
                theirs[f"{to}attn1.to_{name}.{kind}"] = part
    for kind in ("weight", "bias"):
        theirs[f"proj_out_1.{kind}"] = ours[f"final_layer.adaLN_modulation.1.{kind}"]
        theirs[f"proj_out_2.{kind}"] = ours[f"final_layer.linear.{kind}"]
    return theirs


@torch.no_grad()
def outputs(norm2_eps=1e-6):
    """The oracle's output and ours for the same random weights, ours with this eps in the second norm of a block."""
    torch.manual_seed(0)
    oracle = DiTTransformer2DModel(
        num_attention_heads=4,
        attention_head_dim=12,
        in_channels=4,
        out_channels=8,
        num_layers=2,
        sample_size=8,
        patch_size=2,
        num_embeds_ada_norm=10,
    ).eval()
    model = DiT(DiTConfig(depth=2, width=48, heads=4, patch=2, input_size=8, num_classes=10))
    for block in model.blocks:
        block.norm2.eps = norm2_eps
    for parameter in model.parameters():
        if parameter.requires_grad:
            parameter.normal_(std=0.05)
    oracle.load_state_dict(oracle_weights(model.state_dict()))
    x, t, y = torch.randn(2, 4, 8, 8), torch.tensor([500, 17]), torch.tensor([3, 10])  # 10: null
    return oracle(x, timestep=t, class_labels=y).sample, model(x, t, y)


def test_forward_equals_the_oracle(monkeypatch):
    monkeypatch.setattr(dit.embed, "timestep_embedding", THEIR_SINUSOID)
    theirs, ours = outputs(norm2_eps=1e-5)
    assert theirs.std() > 0.1
    torch.testing.assert_close(ours, theirs, atol=1e-5, rtol=0)


def test_the_official_divisor_gives_another_function():
    theirs, ours = outputs(norm2_eps=1e-5)
    assert (ours - theirs).abs().max() > 0.01


def test_the_official_eps_is_a_smaller_difference(monkeypatch):
    monkeypatch.setattr(dit.embed, "timestep_embedding", THEIR_SINUSOID)
    theirs, ours = outputs()
    assert 1e-7 < (ours - theirs).abs().max() < 1e-3


def test_position_table_equals_the_oracle():
    oracle = DiTTransformer2DModel(num_attention_heads=4, attention_head_dim=12, num_layers=1, sample_size=8)
    model = DiT(DiTConfig(depth=1, width=48, heads=4, patch=2, input_size=8))
    torch.testing.assert_close(model.pos_embed, oracle.pos_embed.pos_embed, atol=1e-7, rtol=0, check_dtype=False)


def test_sinusoids_differ_by_1_242_at_step_500():
    t = torch.tensor([500])
    theirs = get_timestep_embedding(t, 256, flip_sin_to_cos=True, downscale_freq_shift=1)
    assert (timestep_embedding(t, 256) - theirs).abs().max().item() == pytest.approx(1.242, abs=1e-3)
    torch.testing.assert_close(timestep_embedding(t, 256, divisor=127), theirs, atol=1e-4, rtol=0)


def test_counts_of_the_oracle_and_every_key_of_it_is_filled():
    with torch.device("meta"):
        oracle = DiTTransformer2DModel(out_channels=8)  # its defaults are XL/2
        shapes = {key: value.shape for key, value in oracle_weights(DiT.from_name("DiT-XL/2").state_dict()).items()}
    named = dict(oracle.named_parameters())
    assert shapes == {key: value.shape for key, value in named.items()} and len(shapes) == 538

    def total(test):
        return sum(p.numel() for key, p in named.items() if test(key))

    assert total(lambda key: True) == 749_826_464
    assert total(lambda key: "bias" in key or "norm" in key) == 301_210_016
    assert total(lambda key: key.endswith("bias")) == 551_840
    assert total(lambda key: "class_embedder" in key) == 32_288_256

"""The text encoder: its sizes, what a position may read, which layer comes out, and transformers' CLIPTextModel."""

import re

import pytest
import torch

from unet.sizes import TEXT_ENCODERS as SIZES
from unet.text.encoder import TextConfig, TextEncoder
from weights.adapter_files.embeddings import add_tokens
from weights.layouts.renames import text_transformers

TINY = TextConfig(vocab_size=50, width=32, layers=3, heads=4, max_length=12)
TO_TRANSFORMERS = text_transformers("")(None)


def random_tower(config):
    """Nothing at 0 or 1, where a swap would not show."""
    torch.manual_seed(0)
    encoder = TextEncoder(config).eval().requires_grad_(False)
    for parameter in encoder.parameters():
        parameter += 0.05 * torch.randn(parameter.shape)
    return encoder


@pytest.fixture
def encoder():
    return random_tower(TINY)


def some_tokens(batch=2, length=12, rows=50):
    return torch.randint(rows, (batch, length), generator=torch.Generator().manual_seed(1))


@pytest.mark.parametrize("name, parameters, tensors", [("CLIP-L", 123_060_480, 196), ("OpenCLIP-H", 340_387_840, 372)])
def test_the_full_sizes_have_the_published_numbers_of_parameters(name, parameters, tensors):
    with torch.device("meta"):
        encoder = TextEncoder(SIZES[name])
    assert sum(p.numel() for p in encoder.parameters()) == parameters and len(encoder.state_dict()) == tensors


def test_the_tiny_size_fits_a_laptop():
    encoder = TextEncoder(SIZES["Text-T"])
    assert encoder(torch.zeros(1, 77, dtype=torch.long)).shape == (1, 77, 128)
    assert sum(p.numel() for p in encoder.parameters()) < 1_000_000


def test_a_position_reads_itself_and_those_before(encoder):
    tokens = some_tokens()
    changed = tokens.clone()
    changed[:, 5] = (tokens[:, 5] + 1) % 50
    moved = (encoder(changed) - encoder(tokens)).abs().amax((0, 2))  # (12,)
    assert moved[:5].max() < 1e-6 and moved[5:].min() > 1e-4


def test_a_row_may_be_shorter_than_the_table_of_positions_but_not_longer(encoder):
    tokens = some_tokens()
    assert torch.allclose(encoder(tokens[:, :7]), encoder(tokens)[:, :7], atol=1e-6)
    with pytest.raises(ValueError, match="12 positions, found 13 tokens"):
        encoder(some_tokens(length=13))


def test_skipping_the_last_layer_is_a_tower_without_it(encoder):
    penultimate = TextEncoder(TextConfig(50, 32, 3, 4, max_length=12, skip=1))
    penultimate.load_state_dict(encoder.state_dict())
    shorter = TextEncoder(TextConfig(50, 32, 2, 4, max_length=12))
    shorter.load_state_dict({name: t for name, t in encoder.state_dict().items() if not name.startswith("layers.2.")})
    out = penultimate(some_tokens())
    assert torch.equal(out, shorter(some_tokens())) and (out - encoder(some_tokens())).abs().max() > 0.1


@pytest.mark.parametrize(
    "fields, message",
    [
        (dict(width=30), "width 30 is not a multiple of 4 heads"),
        (dict(activation="relu"), "activation must be one of quick_gelu, gelu, found 'relu'"),
        (dict(skip=3), r"skip must be 0 \.\. 2 of 3 layers, found 3"),
        (dict(skip=-1), "found -1"),
    ],
)
def test_a_shape_that_does_not_fit_is_refused(fields, message):
    with pytest.raises(ValueError, match=message):
        TextConfig(**dict(vocab_size=50, width=32, layers=3, heads=4) | fields)


def test_a_new_tower_is_scaled_by_its_width_and_depth():
    torch.manual_seed(0)
    encoder = TextEncoder(TextConfig(1000, width=64, layers=8, heads=4))
    std = {name: p.std().item() for name, p in encoder.named_parameters()}
    assert std["token_embedding.weight"] == pytest.approx(0.02, rel=0.1)
    assert std["layers.3.attn.to_q.weight"] == pytest.approx(64**-0.5, rel=0.1)
    assert std["layers.3.mlp.fc1.weight"] == pytest.approx(128**-0.5, rel=0.1)
    for name in ("attn.to_out", "mlp.fc2"):
        assert std[f"layers.3.{name}.weight"] == pytest.approx((2 * 64 * 8) ** -0.5, rel=0.1)


def test_added_tokens_are_new_rows_and_change_nothing_else(encoder):
    before, row = encoder(some_tokens()), torch.full((1, 32), 0.5)
    add_tokens(encoder, row)
    assert encoder.config.vocab_size == 51 and torch.equal(encoder(some_tokens()), before)
    assert torch.equal(encoder.token_embedding(torch.tensor([50])), row)
    assert not encoder.token_embedding.weight.requires_grad  # as the table was
    with pytest.raises(ValueError, match=r"must be \(n, 32\), the width of the text encoder, found \(1, 16\)"):
        add_tokens(encoder, torch.zeros(1, 16))


@pytest.mark.parametrize("activation", ["quick_gelu", "gelu"])
def test_parity_with_transformers(activation):
    transformers = pytest.importorskip("transformers")
    ours = random_tower(TextConfig(50, 32, 3, 4, max_length=12, activation=activation))
    theirs = transformers.CLIPTextModel(
        transformers.CLIPTextConfig(
            vocab_size=50,
            hidden_size=32,
            intermediate_size=128,
            num_hidden_layers=3,
            num_attention_heads=4,
            max_position_embeddings=12,
            hidden_act=activation,
            bos_token_id=48,
            eos_token_id=49,
            pad_token_id=49,
        )
    ).eval()
    prefix = "text_model." if any(name.startswith("text_model.") for name in theirs.state_dict()) else ""
    state = {}
    for name, tensor in ours.state_dict().items():
        for pattern, replacement in TO_TRANSFORMERS:
            name = re.sub(pattern, replacement, name)
        state[prefix + name] = tensor
    missing, unexpected = theirs.load_state_dict(state, strict=False)
    assert not unexpected and all("position_ids" in name for name in missing)
    with torch.no_grad():
        expected = theirs(some_tokens(), output_hidden_states=True)
        assert expected.last_hidden_state.std() > 0.1
        assert (ours(some_tokens()) - expected.last_hidden_state).abs().max() < 1e-5
        penultimate = random_tower(TextConfig(50, 32, 3, 4, max_length=12, activation=activation, skip=1))
        hidden = ours.final_norm(expected.hidden_states[-2])  # what Stable Diffusion 2 reads
        assert (penultimate(some_tokens()) - hidden).abs().max() < 1e-5

"""What is particular to the text side: parts of a model, learned tokens, and Custom Diffusion's counts."""

import pytest
import torch

import adapters
from unet import TextConditioned, TextConfig, TextEncoder, UNet, UNetConfig
from unet.sizes import TEXT_ENCODERS as TOWERS
from unet.sizes import UNETS as SIZES


def model():
    unet = UNetConfig(channels=(8, 16), text=(True, False), heads=(2, 2), layers=1, text_width=8, groups=2)
    return TextConditioned(UNet(unet), TextEncoder(TextConfig(11, width=8, layers=2, heads=2, max_length=4)))


def test_each_part_has_a_method_of_its_own():
    both = adapters.attach(model(), ["unet.lora:rank=2", "text.lora:rank=3"])
    ranks = {name: len(p) for name, p in adapters.trainable_parameters(both).items() if name.endswith("lora_down")}
    assert {rank for name, rank in ranks.items() if name.startswith("unet.")} == {2}
    assert {rank for name, rank in ranks.items() if name.startswith("text.")} == {3} and len(ranks) == 4 * 8 + 2 * 4


def test_a_part_trains_in_full_and_the_other_not_at_all():
    one = adapters.attach(model(), "text.full")
    assert {name.split(".")[0] for name in adapters.trainable_parameters(one)} == {"text"}
    assert len(adapters.trainable_parameters(one)) == len(list(one.text.parameters()))


def test_a_part_that_is_not_there_is_named():
    with pytest.raises(ValueError, match=r"the model has no part 'vae': it has unet, text"):
        adapters.attach(model(), "vae.lora")


def test_only_the_new_rows_move_whatever_the_optimizer_does():
    tower = adapters.attach(model(), "text.tokens:init=5,vectors=2").text
    before = {name: p.detach().clone() for name, p in tower.named_parameters()}
    rows = adapters.trainable_parameters(tower)["token_embedding.token_rows"]
    assert torch.equal(rows, before["token_embedding.weight"][[5, 5]])
    optimizer = torch.optim.AdamW([rows], lr=0.1, weight_decay=0.5)
    for _ in range(3):
        tower(torch.tensor([[0, 11, 12, 1]])).square().sum().backward()
        optimizer.step()
    changed = [name for name, p in tower.named_parameters() if not torch.equal(p, before[name])]
    assert changed == ["token_embedding.token_rows"]
    learned = rows.detach().clone()
    table = adapters.merge(tower).token_embedding
    assert torch.equal(table.weight[:11], before["token_embedding.weight"]) and torch.equal(table.weight[11:], learned)


def test_a_token_may_start_between_words():
    table = model().text.token_embedding.weight
    torch.manual_seed(0)
    tower = model()
    expected = tower.text.token_embedding.weight[[3, 4]].mean(0)
    rows = adapters.attach(tower, "text.tokens:init=3+4").text.token_embedding.token_rows
    assert rows.shape == (1, table.shape[1]) and torch.allclose(rows[0], expected)


@pytest.mark.parametrize(
    ("spec", "fault"),
    [
        ("text.tokens:init=11", "init is a row of 0 .. 10, found '11'"),
        ("text.tokens:init=-1", "init is a row of 0 .. 10, found '-1'"),
        ("text.tokens:vectors=0", "needs vectors >= 1, found 0"),
        ("crossattn:parts=kx", "parts are letters of qkvo, found 'kx'"),
        ("crossattn:parts=", "parts are letters of qkvo, found ''"),
    ],
)
def test_options_out_of_range(spec, fault):
    with pytest.raises(ValueError, match=fault):
        adapters.attach(model(), spec)


@pytest.mark.parametrize(("parts", "count"), [("kv", 19_169_280), ("qkvo", 43_962_560)])
def test_custom_diffusion_trains_the_published_number_of_parameters(parts, count):
    with torch.device("meta"):
        unet = UNet(SIZES["SD-1"])
    assert adapters.counts(adapters.attach(unet, f"crossattn:parts={parts}")) == (count, 859_520_964)


def full_size():
    with torch.device("meta"):
        return TextConditioned(UNet(SIZES["SD-1"]), TextEncoder(TOWERS["CLIP-L"]))


@pytest.mark.parametrize(
    ("spec", "tensors", "count"),
    [
        ("unet.lora:rank=4", 256, 797_184),
        ("text.lora:rank=4", 96, 294_912),
        (r"unet.lora:rank=4,targets=(to_|ff\.net\.0)", 288, 1_246_464),  # what cloneofsimo's scripts train
    ],
)
def test_lora_reaches_every_attention_of_stable_diffusion_1(spec, tensors, count):
    model = adapters.attach(full_size(), spec)
    assert (len(adapters.trainable_parameters(model)), adapters.counts(model)[0]) == (tensors, count)


def test_the_bytes_of_a_lora_and_of_a_word():
    """Of rank 4, 3.2 MB, and of one vector, 3 kB, in float32."""
    for spec, size in (("unet.lora:rank=4", 3_188_736), ("text.tokens:vectors=1", 3_072)):
        model = adapters.attach(full_size(), spec)
        assert sum(p.nbytes for p in adapters.trainable_parameters(model).values()) == size


def test_difffit_has_three_of_the_eleven_scales_of_its_port_to_stable_diffusion():
    """Of biases, norms and scales the port trains 581,124 (arXiv 2304.06648)."""
    counts = {}
    for specs in (("unet.bitfit", "unet.norm"), ("unet.difffit",)):
        model = full_size()
        width = sum(p.numel() for name, p in model.named_parameters() if "blocks.0.norm1.weight" in name)
        counts[specs[-1]] = adapters.counts(adapters.attach(model, list(specs)))[0]
    assert width == 12_480 and counts == {"unet.norm": 443_844, "unet.difffit": 443_844 + 3 * width}
    assert counts["unet.norm"] + 11 * width == 581_124


def test_every_word_reads_its_own_row():
    """The last of the vocabulary, the first new one and the second are three rows."""
    table = adapters.attach(model(), "text.tokens:init=5,vectors=2").text.token_embedding
    with torch.no_grad():
        table.token_rows.copy_(torch.tensor([[100.0], [200.0]]).expand(2, 8))
    rows = table(torch.tensor([[0, 10, 11, 12]]))[0]
    assert torch.equal(rows[:2], table.weight[[0, 10]]) and torch.equal(rows[2:], table.token_rows)

"""Prompts with weights and of any length, as users of AUTOMATIC1111's web UI write them."""

import pytest
import torch

from unet.text.encoder import TextConfig, TextEncoder
from unet.text.prompt import added_words, chunks, emphasise, encode_prompts, escape, parse
from unet.text.tokenizer import Tokenizer

WORDS = "a photo of red blue green cat dog tree , ( )".split(" ")


@pytest.fixture(scope="module")
def tokenizer():
    """Every one of WORDS is one token; rows of 12, so chunks of 10."""
    trained = Tokenizer.train(WORDS * 2, 1000, length=12)
    trained.add("<logo>", vectors=4)
    return trained


@pytest.fixture(scope="module")
def encoder(tokenizer):
    torch.manual_seed(0)
    encoder = TextEncoder(TextConfig(len(tokenizer), width=16, layers=2, heads=2, max_length=12))
    torch.nn.init.normal_(encoder.final_norm.bias, mean=0.5)  # a new norm's mean is 0, which nothing can be restored to
    return encoder.eval().requires_grad_(False)


@pytest.mark.parametrize(
    "prompt, expected",
    [
        (
            "a (red) [blue] ((green:1.5)) \\(x\\) (open",
            [
                ("a ", 1),
                ("red", 1.1),
                (" ", 1),
                ("blue", 1 / 1.1),
                (" ", 1),
                ("green", 1.65),
                (" (x) ", 1),
                ("open", 1.1),
            ],
        ),
        ("plain", [("plain", 1)]),
        ("((a)) [[b]]", [("a", 1.21), (" ", 1), ("b", 1 / 1.21)]),
        ("(a (b:2) c:1.5)", [("a ", 1.5), ("b", 3), (" c", 1.5)]),
        ("(a: 0.5 )(b:.5)(c:-1)(d:2.)", [("ab", 0.5), ("c", -1), ("d", 2)]),
        ("(cat)(dog)", [("catdog", 1.1)]),
        ("[a:1.5] b:1.5) c)]", [("a:1.5", 1 / 1.1), (" b:1.5) c)]", 1)]),
        ("a: b (c:d)", [("a: b ", 1), ("c:d", 1.1)]),
        ("\\[a\\] b\\c \\\\d", [("[a] bc \\d", 1)]),
        ("(a [b", [("a ", 1.1), ("b", 1)]),
        ("()", []),
        ("", []),
        ("  ", [("  ", 1)]),
    ],
)
def test_weights(prompt, expected):
    (part,) = parse(prompt)
    assert [text for text, _ in part] == [text for text, _ in expected]
    assert [weight for _, weight in part] == pytest.approx([weight for _, weight in expected])


def test_break_separates_parts_and_a_weight_reaches_over_it():
    assert parse("a BREAK b, BREAKS  BREAK") == [[("a", 1)], [("b, BREAKS", 1)], []]
    assert parse("(a BREAK b:2)") == [[("a", 2)], [("b", 2)]]


def words(prompt, tokenizer):
    """The chunks of a prompt in words."""
    return [tokenizer.decode([i for i, _ in chunk]) for chunk in chunks(prompt, tokenizer)]


@pytest.mark.parametrize(
    "prompt, expected",
    [
        ("", [""]),
        ("   \n", [""]),
        ("a (cat)", ["a cat"]),
        ("a " * 10, ["a " * 10]),
        ("a " * 11, ["a " * 10, "a"]),
        ("a " * 25, ["a " * 10, "a " * 10, "a " * 5]),
        ("cat BREAK dog", ["cat", "dog"]),
        ("cat BREAK", ["cat"]),
        ("BREAK cat BREAK BREAK dog", ["", "cat", "", "dog"]),
        ("a " * 10 + "BREAK dog", ["a " * 10, "dog"]),
        ("a cat, a dog " + "a " * 6, ["a cat ,", "a dog a a a a a a"]),  # not cut within a phrase
        ("a cat, " + "a " * 7 + ", dog", ["a cat , " + "a " * 7, ", dog"]),  # a comma follows where it is full
        ("a " * 9 + ", dog", ["a " * 9 + ",", "dog"]),
        ("a " * 6 + "<logo>", ["a " * 6 + "<logo> <logo>_1 <logo>_2 <logo>_3"]),
        ("a " * 7 + "<logo> dog", ["a " * 7, "<logo> <logo>_1 <logo>_2 <logo>_3 dog"]),
    ],
)  # its vectors stay together
def test_chunks(tokenizer, prompt, expected):
    assert words(prompt, tokenizer) == [chunk.strip() for chunk in expected]


def test_a_comma_further_back_than_twenty_tokens_is_not_gone_back_to(tokenizer):
    long = Tokenizer(tokenizer.vocab, tokenizer.merges)  # chunks of 75
    near, far = ("a " * n + ", " + "dog " * (80 - n) for n in (55, 54))
    assert [len(chunk) for chunk in chunks(near, long)] == [56, 25]
    assert [len(chunk) for chunk in chunks(far, long)] == [75, 6]


def test_every_token_carries_its_weight(tokenizer):
    (chunk,) = chunks("a (red <logo>:1.5) dog", tokenizer)
    assert [weight for _, weight in chunk] == [1, 1.5, 1.5, 1.5, 1.5, 1.5, 1]


def test_a_plain_prompt_is_the_tower_of_its_row(encoder, tokenizer):
    prompts = ["a photo of a cat", "", "  "]
    states = encode_prompts(encoder, tokenizer, prompts)
    assert states.shape == (3, 12, 16) and torch.equal(states, encoder(tokenizer.tokens(prompts)))
    assert torch.equal(states[1], states[2])


def test_a_long_prompt_is_its_chunks_and_a_short_one_gets_empty_ones(encoder, tokenizer):
    states = encode_prompts(encoder, tokenizer, ["a " * 10 + "dog", "cat"])
    assert states.shape == (2, 24, 16)
    parts = encode_prompts(encoder, tokenizer, ["a " * 10, "dog", "cat", ""]).unflatten(0, (2, 2)).flatten(1, 2)
    assert torch.allclose(states, parts, atol=1e-6)


def test_a_weight_scales_its_tokens_and_keeps_the_mean_of_the_chunk(encoder, tokenizer):
    plain, weighted, brackets = encode_prompts(encoder, tokenizer, ["a cat dog", "a (cat:1.5) dog", "\\(a\\) cat dog"])
    weights = torch.ones(12, 1)
    weights[2] = 1.5  # start, a, cat
    by_hand = plain * weights
    by_hand = by_hand * plain.mean() / by_hand.mean()
    assert torch.allclose(weighted, by_hand, atol=1e-6) and (weighted - plain).abs().max() > 0.1
    assert weighted.mean() == pytest.approx(plain.mean().item(), rel=1e-4)
    assert (brackets - plain).abs().max() > 0.1  # literal brackets are words


def test_a_prompt_is_the_same_beside_any_other(encoder, tokenizer):
    alone = encode_prompts(encoder, tokenizer, ["a (cat:1.4)"])
    beside = encode_prompts(encoder, tokenizer, ["a (cat:1.4)", "[[tree]] (red:3)"])
    assert torch.allclose(alone[0], beside[0], atol=1e-6)


def test_emphasis_keeps_the_dtype_and_leaves_what_has_no_weight():
    states = torch.randn(2, 3, 4, generator=torch.Generator().manual_seed(0)).bfloat16() + 1
    out = emphasise(states, torch.tensor([[1.0, 1.0, 1.0], [1.0, 2.0, 1.0]]))
    assert out.dtype == torch.bfloat16 and torch.equal(out[0], states[0])
    assert out[1].float().mean() == pytest.approx(states[1].float().mean().item(), rel=0.02)
    assert torch.equal(emphasise(torch.zeros(1, 3, 4), torch.ones(1, 3)), torch.zeros(1, 3, 4))  # and no 0 / 0


def test_what_does_not_fit_is_refused(encoder, tokenizer):
    with pytest.raises(ValueError, match="expected a list of prompts, found one prompt, 'cat'"):
        encode_prompts(encoder, tokenizer, "cat")
    small = TextEncoder(TextConfig(100, width=16, layers=1, heads=2))
    with pytest.raises(
        ValueError, match=f"the tokenizer has {len(tokenizer)} tokens, the text encoder 100 rows for them"
    ):
        encode_prompts(small, tokenizer, ["cat"])


@pytest.mark.parametrize("word", ["[V]", "(v)", "((x))", "a\\b", "[v:1.5]", "<x>(1.2)"])
@pytest.mark.parametrize("around", ["a photo of a {} cat", "{}", "({} cat:1.3)", "[{}] dog", "red {}"])
def test_an_added_word_is_read_before_the_brackets_are(word, around):
    """It keeps all its vectors, in any capitals, and the brackets around it weigh it."""
    words = Tokenizer.train(WORDS * 2, 1000, length=20)
    ids = words.add(word, 2)
    for written in (word, word.upper(), word.lower()):
        found = [(i, round(weight, 3)) for chunk in chunks(around.format(written), words) for i, weight in chunk]
        weight = {"(": 1.3, "[": 0.909}.get(around[0], 1)
        assert [pair for pair in found if pair[0] in ids] == [(ids[0], weight), (ids[1], weight)]
    assert added_words([around.format(word)], words) == {word} and added_words(["a cat"], words) == set()


def test_without_such_a_word_brackets_are_weights(tokenizer):
    assert {weight for chunk in chunks("a [red] (cat)", tokenizer) for _, weight in chunk} == {1, 1.1, 1 / 1.1}


@pytest.mark.parametrize(
    "text",
    ["a cat (toy)", "[V] nut", "a (cat:1.3) dog", "BREAK", "tree BREAK dog", "a\\b", "\\(", "((", "a: b)", "BREAKFAST"],
)
def test_an_escaped_text_is_its_tokens_without_weights(text):
    words = Tokenizer.train(WORDS * 2, 1000)
    assert chunks(escape(text), words) == [[(i, 1) for i in words.encode(text)]]


def test_a_text_without_brackets_is_its_own_prompt():
    for text in ("a photo of a red cat", "a: b, c", "breakfast", ""):
        assert escape(text) == text


def test_a_token_does_not_hold_break():
    with pytest.raises(ValueError, match="BREAK begins a new chunk"):
        Tokenizer.train(WORDS * 2, 1000).add("my-BREAK")

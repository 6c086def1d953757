"""The byte-pair tokenizer: pieces, merges, learning, rows of ids, added tokens, files, and transformers' ids.

The tests of the real vocabulary run where the environment variable GRAFT_CLIP_TOKENIZER names a folder with CLIP's
vocab.json and merges.txt.
"""

import gzip
import json
import os
import pickle
import random
import unicodedata
from collections import Counter

import pytest
import torch

from unet.text.bytepair import BYTES, END, START, learn, merge, normalise, pieces, symbols_of
from unet.text.tokenizer import Tokenizer

CAPTIONS = [
    f"a photo of a {thing} with a {defect}, {where}"
    for thing in ("hazelnut", "screw", "pill", "capsule")
    for defect in ("crack", "hole", "scratch")
    for where in ("studio light", "on wood")
]


@pytest.fixture(scope="module")
def trained():
    """A vocabulary that no test changes."""
    return Tokenizer.train(CAPTIONS, 563)


@pytest.fixture
def tokenizer():
    return Tokenizer.train(CAPTIONS, 563)


@pytest.fixture(scope="module")
def real():
    folder = os.environ.get("GRAFT_CLIP_TOKENIZER")
    if not folder:
        pytest.skip("GRAFT_CLIP_TOKENIZER names no folder with CLIP's vocab.json and merges.txt")
    return Tokenizer.from_folder(folder)


def strings(count, seed=0):
    """Random texts: characters of every category, and what is known to be cut or joined in a special way.

    Characters are those of Unicode 3.2, on which every later version and library agrees.
    """
    draw = random.Random(seed)
    characters = [chr(i) for i in range(0x30000) if unicodedata.ucd_3_2_0.category(chr(i)) not in ("Cn", "Cs", "Co")]
    parts = [
        "'s",
        "'T",
        "'re",
        "'LL ",
        "it's",
        "<|endoftext|>",
        "<|STARTOFTEXT|>!",
        "<|",
        "&amp;",
        "&#39;",
        " \t\n ",
        "\x00",
        "\x1c",
        "\x85",
        "😀",
        "👩‍🔬",
        "🇩🇪",
        "你好",
        "日本語",
        "e\u0301",
        "ΟΔΟΣ ",
        "İ",
        "ß",
        "½",
        "①",
        "٣",
        "“",
        "’",
        "http://x.y/z?q=1",
        "Hello",
        " photo of a ",
        "CRACK",
        "3.14",
        "_",
        "--",
        "!!!",
        "\u1112\u1161\u11ab",
        "ก็",
        "ﬁ",
        "\u200b",
        "\u00ad",
    ]
    choices = [lambda: draw.choice(parts), lambda: draw.choice(characters), lambda: chr(draw.randrange(32, 0x250))]
    return ["".join(draw.choice(choices)() for _ in range(draw.randrange(25))) for _ in range(count)]


def test_every_byte_has_a_printing_symbol_of_its_own():
    assert len(set(BYTES)) == 256 and not any(symbol.isspace() for symbol in BYTES)
    assert BYTES[ord("a")] == "a" and BYTES[0] == "Ā" and BYTES[ord(" ")] == "Ġ"  # GPT-2's table
    assert symbols_of("né") == ["n", "Ã", "©</w>"]


@pytest.mark.parametrize(
    "text, expected",
    [
        ("a photo, of 12", ["a", "photo", ",", "of", "1", "2"]),
        ("it's they'll don't o'clock", ["it", "'s", "they", "'ll", "don", "'t", "o", "'", "clock"]),
        ("what?!... x_y", ["what", "?!...", "x", "_", "y"]),
        ("你好 naïve x² ½", ["你好", "naïve", "x", "²", "½"]),
        ("e\u0301te\u0301", ["été"]),  # composed
        ("q\u0301x", ["q", "\u0301", "x"]),  # a mark that composes with nothing is no letter
        ("a\u00a0b\u3000c\x1cd", ["a", "b", "c", "\x1c", "d"]),
        ("ΣΑΣ", ["σασ"]),  # no final sigma
        ("<|ENDOFTEXT|>!", ["<|", "endoftext", "|>", "!"]),
        ("stz<|stärtoftext|>", ["stz", "<|", "stärtoftext", "|>"]),
        (" \t\n", []),
    ],
)
def test_pieces(text, expected):
    assert pieces(normalise(text)) == expected


def test_a_merge_takes_pairs_from_the_left():
    assert merge(list("aaaba"), ("a", "a")) == ["aa", "a", "b", "a"]
    assert merge(list("xabab"), ("a", "b")) == ["x", "ab", "ab"]


def test_learning_by_hand():
    """pu 17 times; then hu 15, before pun 12. Ties go to the first pair by code point; a pair seen once is no merge."""
    assert learn({"hug": 10, "pug": 5, "pun": 12, "bun": 4, "hugs": 5}, 3) == [("p", "u"), ("h", "u"), ("pu", "n</w>")]
    assert learn({"cd": 2, "ab": 2}, 1) == [("a", "b</w>")]
    assert learn({"ab": 1}, 5) == []


def test_learning_keeps_its_counts_as_if_it_counted_again_each_time():
    draw = random.Random(0)
    counts = {"".join(draw.choice("ab") for _ in range(draw.randrange(1, 9))): draw.randrange(1, 5) for _ in range(60)}
    words, expected = {word: symbols_of(word) for word in counts}, []
    while len(expected) < 25:
        pairs = Counter()
        for word, symbols in words.items():
            for pair in zip(symbols, symbols[1:]):
                pairs[pair] += counts[word]
        best = max(sorted(pairs), key=pairs.get)
        expected.append(best)
        words = {word: merge(symbols, best) for word, symbols in words.items()}
    assert learn(counts, 25) == expected


def test_a_trained_vocabulary_knows_its_words_and_spells_the_others(trained):
    assert len(trained) == 563 == len(trained.vocab)
    assert trained.encode("a photo of a CRACK") == [
        trained.vocab[f"{word}</w>"] for word in ("a", "photo", "of", "a", "crack")
    ]
    assert len(trained.encode("xq")) == 2 and len(trained.encode("你")) == 3  # bytes
    assert (trained.start, trained.end, trained.pad) == (561, 562, 562)


def test_training_stops_where_nothing_repeats_and_needs_room_for_the_bytes():
    assert len(Tokenizer.train(["ab cd"], 1000)) == 514
    with pytest.raises(ValueError, match="do not fit into a vocabulary of 513"):
        Tokenizer.train(CAPTIONS, 513)


@pytest.mark.parametrize(
    "text, expected",
    [("A Photo\tof  a hole", "a photo of a hole"), ("it's 12!", "it 's 1 2 !"), ("你好 😀", "你好 😀"), ("", "")],
)
def test_decoding_gives_the_text_in_the_tokenizers_spelling(trained, text, expected):
    assert trained.decode(trained.encode(text)) == expected
    assert trained.decode(trained.tokens([text])[0]) == expected
    with pytest.raises(ValueError, match=r"ids are 0 \.\. 562, found 563"):
        trained.decode([563])


def test_rows_begin_with_start_and_are_padded_after_end(trained):
    rows = trained.tokens(["a crack", ""])
    assert rows.shape == (2, 77) and rows.dtype == torch.long
    a, crack = trained.encode("a crack")
    assert rows[0].tolist() == [561, a, crack, *[562] * 74] and rows[1].tolist() == [561, *[562] * 76]


def test_a_padding_token_of_its_own(trained):
    """As in Stable Diffusion 2. Like transformers, one "!" in a text then is the padding token."""
    two = Tokenizer(trained.vocab, trained.merges, pad="!", length=6)
    assert two.tokens(["crack"]).tolist() == [[561, two.vocab["crack</w>"], 562, 0, 0, 0]]
    assert two.encode("crack!") == [two.vocab["crack</w>"], 0]
    assert trained.encode("crack!") == [two.vocab["crack</w>"], two.vocab["!</w>"]]


def test_what_is_cut_off_is_said_in_words(trained):
    short = Tokenizer(trained.vocab, trained.merges, length=6)
    with pytest.warns(UserWarning, match="1 of 2 texts exceed 4 tokens; cut off: 'hole crack'") as said:
        rows = short.tokens(["a photo of a hole crack", "a photo of a"])
    assert len(said) == 1 and rows.shape == (2, 6) and rows[:, -1].tolist() == [562, 562]
    assert torch.equal(rows[0], rows[1])


def test_a_single_text_is_not_a_list_of_letters(trained):
    with pytest.raises(ValueError, match="expected a list of texts, found one text, 'a crack'"):
        trained.tokens("a crack")


def test_a_result_belongs_to_the_caller(trained):
    trained.encode("a hole").append(3)
    assert len(trained.encode("a hole")) == 2


def test_an_added_token_stands_for_all_its_vectors(tokenizer):
    a, s = tokenizer.encode("a") + tokenizer.encode("s")
    spelled = tokenizer.encode("a <logo>")
    assert tokenizer.add("<logo>") == [563] and tokenizer.add("<Subject>", vectors=3) == [564, 565, 566]
    assert len(tokenizer) == 567 and len(spelled) > 2
    assert tokenizer.encode("a <logo>") == [a, 563]  # not what was encoded before
    assert tokenizer.encode("a<subject>s <LOGO>") == [a, 564, 565, 566, s, 563]
    assert tokenizer.encode("<subject>_2 a") == [566, a]  # the longest name that fits
    assert tokenizer.decode([a, 564, 563]) == "a <Subject> <logo>"


@pytest.mark.parametrize(
    "token, vectors, message",
    [
        ("crack", 1, "'crack' is in the vocabulary of 564 tokens already"),
        ("Crack", 1, "'crack' is in the vocabulary"),
        ("<LOGO>", 1, "'<logo>' is in the vocabulary"),
        ("my logo", 1, "one word without white space, found 'my logo'"),
        ("", 1, "found ''"),
        ("<new>", 0, r"1 \.\. 75 vectors, found 0"),
        ("<new>", 76, "found 76"),
    ],
)
def test_a_token_that_cannot_be_added(tokenizer, token, vectors, message):
    tokenizer.add("<logo>")
    with pytest.raises(ValueError, match=message):
        tokenizer.add(token, vectors)
    assert len(tokenizer) == 564 and list(tokenizer.added) == ["<logo>"]


def test_a_saved_folder_comes_back_whole(tokenizer, tmp_path):
    first = Tokenizer(tokenizer.vocab, tokenizer.merges, pad="!", length=16)
    first.add("<logo>", vectors=2)
    first.add("<subject>")
    first.save(tmp_path)
    second = Tokenizer.from_folder(tmp_path)
    assert (second.vocab, second.merges, second.added) == (first.vocab, first.merges, first.added)
    assert (second.pad, second.length, len(second)) == (0, 16, 566)
    assert pickle.loads(pickle.dumps(second)).encode("a <logo>") == first.encode("a <logo>")


def test_a_folder_of_todays_transformers_has_one_file(tokenizer, tmp_path):
    merges = [list(pair) for pair in tokenizer.merges]  # older versions join them with a space
    added = [{"id": 562, "content": END}, {"id": 563, "content": "<logo>"}]
    for written in (merges, [" ".join(pair) for pair in merges]):
        whole = {"model": {"type": "BPE", "vocab": tokenizer.vocab, "merges": written}, "added_tokens": added}
        (tmp_path / "tokenizer.json").write_text(json.dumps(whole))
        read = Tokenizer.from_folder(tmp_path)
        assert read.merges == tokenizer.merges and read.encode("<logo>") == [563] and read.length == 77


def test_settings_in_their_older_spellings(tokenizer, tmp_path):
    tokenizer.save(tmp_path)
    (tmp_path / "tokenizer_config.json").write_text(json.dumps({"model_max_length": 10**30}))  # transformers' "none"
    (tmp_path / "special_tokens_map.json").write_text(json.dumps({"pad_token": {"content": "!"}}))
    (tmp_path / "added_tokens.json").write_text(json.dumps({"<logo>": 563, END: 562}))
    read = Tokenizer.from_folder(tmp_path)
    assert (read.length, read.pad, read.added) == (77, 0, {"<logo>": [563]})
    (tmp_path / "added_tokens.json").write_text(json.dumps({"<logo>": 565}))
    with pytest.raises(ValueError, match="expected added tokens with ids from 563 on, found {565: '<logo>'}"):
        Tokenizer.from_folder(tmp_path)


def test_openais_file_ends_before_its_last_lines(tmp_path):
    merges = ["c r", "cr a", "a t</w>", *(f"q{i} q" for i in range(48_891))]
    path = tmp_path / "bpe_simple_vocab_16e6.txt.gz"
    with gzip.open(path, "wt", encoding="utf-8") as file:
        file.write("\n".join(['"bpe_simple_vocab_16e6.txt#version: 0.2', *merges, "beyond the end", ""]))
    read = Tokenizer.from_openai(path)
    assert len(read) == 49408 and (read.start, read.end) == (49406, 49407)
    assert [read.vocab[token] for token in ("!", "!</w>", "cr", "cra", "at</w>")] == [0, 256, 512, 513, 514]
    assert read.encode("crat cat") == [513, 339, 66, 514]  # cra t</w> c at</w>: the first merge learned goes first
    with gzip.open(path, "wt") as file:
        file.write("two\nlines")
    with pytest.raises(ValueError, match="expected 48895 lines or more, found 2"):
        Tokenizer.from_openai(path)


def damaged(folder, name, text):
    (folder / name).write_text(text)
    return folder


@pytest.mark.parametrize(
    "name, text, message",
    [
        ("vocab.json", "{", "vocab.json: not valid JSON"),
        ("vocab.json", "[1]", "vocab.json: expected a JSON object, found a list"),
        ("vocab.json", '{"a": 0, "b": 2}', r"a vocabulary of 2 tokens needs the ids 0 \.\. 1, each once"),
        ("vocab.json", '{"a": 0}', r"tokens are not in the vocabulary of 1, such as \['!', '\"', '#'\]"),
        ("merges.txt", "#version: 0.2\na b c\n", "merges.txt: expected two symbols in each line, found 'a b c'"),
        ("merges.txt", "x y\n", r"vocab.json: 1 tokens are not in the vocabulary of 563, such as \['xy'\]"),
    ],
)
def test_a_damaged_file_is_named(tokenizer, tmp_path, name, text, message):
    tokenizer.save(tmp_path)
    with pytest.raises(ValueError, match=message):
        Tokenizer.from_folder(damaged(tmp_path, name, text))


def test_a_folder_without_a_vocabulary(tmp_path):
    with pytest.raises(ValueError, match="expected vocab.json and merges.txt, or .* tokenizer.json, found neither"):
        Tokenizer.from_folder(tmp_path)
    damaged(tmp_path, "tokenizer.json", '{"model": {"type": "Unigram"}}')  # T5's
    with pytest.raises(ValueError, match="found a tokenizer.json of type Unigram"):
        Tokenizer.from_folder(tmp_path)


@pytest.mark.parametrize("pad", [END, "!"])
def test_transformers_opens_a_saved_folder_and_gives_the_same_ids(tokenizer, tmp_path, pad):
    transformers = pytest.importorskip("transformers")
    ours = Tokenizer(tokenizer.vocab, tokenizer.merges, pad=pad)
    ours.add("<Logo>")
    ours.save(tmp_path)
    theirs = transformers.CLIPTokenizer.from_pretrained(tmp_path)
    assert theirs.model_max_length == 77 and theirs.pad_token_id == ours.pad and len(theirs) == len(ours)
    texts = [*CAPTIONS, *strings(5000), "a<LOGO>s", "two <logo> <Logo>"]
    for text, expected in zip(texts, theirs(texts).input_ids):
        assert [ours.start, *ours.encode(text), ours.end] == expected, text
    padded = theirs(CAPTIONS, padding="max_length", max_length=77, return_tensors="pt").input_ids
    assert torch.equal(ours.tokens(CAPTIONS), padded)


def test_a_folder_saved_by_transformers_is_read(tokenizer, tmp_path):
    transformers = pytest.importorskip("transformers")
    tokenizer.save(tmp_path / "ours")
    theirs = transformers.CLIPTokenizer.from_pretrained(tmp_path / "ours")
    theirs.add_tokens(["<logo>", "<logo>_1"])
    theirs.save_pretrained(tmp_path / "theirs")
    read = Tokenizer.from_folder(tmp_path / "theirs")
    assert (read.vocab, read.merges, read.added) == (tokenizer.vocab, tokenizer.merges, {"<logo>": [563, 564]})


@pytest.mark.parametrize(
    "text, ids",
    [
        ("a photo of a cat", [320, 1125, 539, 320, 2368]),
        ("A  Photo\tof a CAT!!", [320, 1125, 539, 320, 2368, 748]),
        ("cafe\u0301", [15304]),
        ("it's 2024 &amp; fun", [585, 568, 273, 271, 273, 275, 261, 6259, 282, 1499]),
        ("你好 😀", [47466, 254, 29290, 377, 7334]),
        ("½ ①", [33613, 158, 239, 510]),
        ("a<|endoftext|>b", [320, 49407, 321]),
        ("x" * 60, [32035] * 14 + [22819]),
    ],
)
def test_ids_of_clips_vocabulary(real, text, ids):
    assert real.encode(text) == ids


def test_clips_vocabulary_from_openais_file(real, tmp_path):
    path = tmp_path / "bpe_simple_vocab_16e6.txt.gz"
    with gzip.open(path, "wt", encoding="utf-8") as file:
        file.write("\n".join(["header", *map(" ".join, real.merges), "and more"]))
    read = Tokenizer.from_openai(path)
    assert read.vocab == real.vocab and read.merges == real.merges


@pytest.mark.parametrize("pad", [END, "!"])
def test_clips_ids_equal_those_of_transformers(real, tmp_path, pad):
    transformers = pytest.importorskip("transformers")
    ours = Tokenizer(real.vocab, real.merges, pad=pad)
    ours.save(tmp_path)
    theirs = transformers.CLIPTokenizer.from_pretrained(tmp_path)
    texts = strings(5000)
    for text, expected in zip(texts, theirs(texts).input_ids):
        assert [ours.start, *ours.encode(text), ours.end] == expected, text
        if pad == END and END not in text:  # where transformers' "special" ids are start and end alone
            assert ours.decode(ours.encode(text)) == theirs.decode(expected, skip_special_tokens=True), text


@pytest.mark.parametrize("in_map", ["!", None, {"content": "!"}])
@pytest.mark.parametrize("decoder", [False, True])
def test_of_two_files_that_state_the_padding_transformers_choice_wins(tokenizer, tmp_path, in_map, decoder):
    """As in Stable Diffusion 2's published folders: the map says "!", and the newer file <|endoftext|>."""
    transformers = pytest.importorskip("transformers")
    tokenizer.save(tmp_path)
    config = json.loads((tmp_path / "tokenizer_config.json").read_text()) | {"pad_token": END}
    if decoder:
        flags = {"lstrip": False, "rstrip": False, "single_word": False, "normalized": False, "special": True}
        config["added_tokens_decoder"] = {str(tokenizer.vocab[t]): {"content": t, **flags} for t in (START, END)}
    else:
        config.pop("added_tokens_decoder", None)
    (tmp_path / "tokenizer_config.json").write_text(json.dumps(config))
    special = {"bos_token": START, "eos_token": END, "unk_token": END} | ({"pad_token": in_map} if in_map else {})
    (tmp_path / "special_tokens_map.json").write_text(json.dumps(special))
    read = Tokenizer.from_folder(tmp_path)
    assert read.pad_token == ("!" if in_map and not decoder else END)
    if not isinstance(in_map, dict):
        theirs = transformers.CLIPTokenizer.from_pretrained(tmp_path)
        assert theirs.pad_token == read.pad_token
        assert (
            theirs("a crack", padding="max_length", max_length=20).input_ids
            == read.tokens(["a crack"])[0, :20].tolist()
        )


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("vocab.json", {"a": "0"}, r"vocab.json: ids\['a'\] must be a whole number, found '0'"),
        ("tokenizer_config.json", {"model_max_length": "77"}, "model_max_length must be a number, found '77'"),
        ("tokenizer_config.json", {"model_max_length": -1}, "model_max_length must be at least 3"),
        ("special_tokens_map.json", {"pad_token": 3}, "pad_token must be a text, found 3"),
        ("tokenizer_config.json", {"added_tokens_decoder": [1]}, "added_tokens_decoder must be an object"),
        ("tokenizer_config.json", {"added_tokens_decoder": {"x": {}}}, "names in added_tokens_decoder must be ids"),
        ("tokenizer_config.json", {"added_tokens_decoder": {"9": {}}}, "token 9 must be a text, found {}"),
        ("added_tokens.json", {"x": "y"}, r"added_tokens.json: ids\['x'\] must be a whole number"),
        ("tokenizer.json", {"model": []}, "tokenizer.json: model must be an object"),
        ("tokenizer.json", {"added_tokens": [3]}, r"tokenizer.json: added_tokens\[0\] must be an object"),
    ],
)
def test_no_value_of_a_folder_is_taken_on_faith(tokenizer, tmp_path, name, content, message):
    tokenizer.save(tmp_path)
    if name == "added_tokens.json":
        (tmp_path / "tokenizer_config.json").unlink()
    with pytest.raises(ValueError, match=message):
        Tokenizer.from_folder(damaged(tmp_path, name, json.dumps(content)))


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 1356917\n", "expected the 1,356,917 bytes"),
        (b"not gzip", "not a whole gzip file of text"),
        (gzip.compress(b"a b\n" * 1000, mtime=0)[:-20], "not a whole gzip file of text"),
    ],
)
def test_openais_file_that_is_none(tmp_path, content, message):
    (tmp_path / "w.gz").write_bytes(content)
    with pytest.raises(ValueError, match=f"w.gz: .*{message}"):
        Tokenizer.from_openai(tmp_path / "w.gz")


def test_a_folder_of_lfs_pointers_is_told_as_such(tokenizer, tmp_path):
    """Config, vocabulary and merges, as git clones them without LFS."""
    tokenizer.save(tmp_path)
    pointer = "version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 961143\n"
    for name in ("merges.txt", "vocab.json", "tokenizer_config.json", "special_tokens_map.json"):
        with pytest.raises(ValueError, match=r"a Git LFS pointer .* expected the 961,143 bytes .* `git lfs pull`"):
            Tokenizer.from_folder(damaged(tmp_path, name, pointer))

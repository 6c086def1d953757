"""A new word of the text encoder: what it needs of the token table."""

from dataclasses import replace

import pytest

import weights
from config.training import NewWord
from recipes.models.new_word import add_word, word_report
from unet import TextEncoder


def test_a_word_needs_a_table_that_ends_with_the_vocabulary(tiny_sd):
    sd = weights.load_sd(tiny_sd)
    wider = TextEncoder(replace(sd.text.config, vocab_size=sd.text.config.vocab_size + 3))
    word, size = NewWord(token="<x>", token_init="hazelnut"), len(sd.tokenizer)
    words = f"a new word needs a token table of one row for each token; the model has {size + 3} rows and {size} tokens"
    with pytest.raises(ValueError, match=words):
        add_word(word, sd._replace(text=wider), ["a <x>"])


def test_no_word_trains_nothing_and_reports_nothing(tiny_sd):
    sd = weights.load_sd(tiny_sd)
    size = len(sd.tokenizer)
    assert add_word(NewWord(), sd, ["a pill"]) == ([], None) and len(sd.tokenizer) == size
    assert word_report(None, sd.tokenizer, None) == {}


def test_a_word_is_a_method_and_a_token(tiny_sd):
    sd = weights.load_sd(tiny_sd)
    (start,) = sd.tokenizer.encode("hazelnut")
    specs, tokens = add_word(NewWord(token="<x>", token_init="hazelnut", vectors=2), sd, ["a <X>"])
    assert specs == [f"text.tokens:init={start},vectors=2"] and tokens == {"<x>": 2}
    assert len(sd.tokenizer.encode("<x>")) == 2

"""A new word for the text encoder: into the tokenizer, into the captions, and what has become of it."""

import torch
from torch.nn import functional as F

import weights
from config.training import NewWord
from unet import TextConditioned, Tokenizer
from unet.text.pair import encoders


def add_word(word: NewWord, sd: weights.StableDiffusion, texts: list[str]) -> tuple[list[str], dict[str, int] | None]:
    """Add the word to the tokenizer -> (the adapters that train its rows, {token: vectors}); ([], None) without one.

    XL's two text encoders have a row each.

    texts: the captions. Raises ValueError for a token that exists, captions without it, a start that is not one token,
    and a token table with other rows than the tokenizer has tokens, whose next row would not be the new word's.
    """
    if not word.token:
        return [], None
    tokenizer = sd.tokenizer
    for encoder in encoders(sd.text).values():
        if (rows := encoder.token_embedding.num_embeddings) != len(tokenizer):
            raise ValueError(
                f"a new word needs a token table of one row for each token; the model has {rows} rows and "
                f"{len(tokenizer)} tokens"
            )
    init = tokenizer.encode(word.token_init)
    if len(init) != 1:
        spelled = [tokenizer.decode([i]) for i in init]
        raise ValueError(
            f"token_init must be one token of the vocabulary, found {word.token_init!r}, which is {len(init)}: "
            f"{spelled}"
        )
    tokenizer.add(word.token, word.vectors)
    without = [text for text in texts if word.token.lower() not in text.lower()]
    if without:
        raise ValueError(
            f"{len(without)} of {len(texts)} captions lack the token {word.token!r}, {without[0]!r} for one, and "
            f"teach it nothing (--template names it)"
        )
    options = f"init={init[0]},vectors={word.vectors}"
    return [f"text.{start}tokens:{options}" for start in encoders(sd.text)], {word.token: word.vectors}


@torch.no_grad()
def word_report(model: TextConditioned, tokenizer: Tokenizer, tokens: dict[str, int] | None) -> dict:
    """For the log: the norm of the learned rows, the mean norm of the vocabulary, and the word most like the first.

    Those of the first text encoder, where there are two.
    """
    if not tokens:
        return {}
    table = next(iter(encoders(model.text).values())).token_embedding
    rows, known = table.token_rows.float(), table.weight.float()  # (n, D), (V, D)
    nearest = F.cosine_similarity(known, rows[:1]).argmax().item()
    return {
        "token_norm": rows.norm(dim=1).mean().item(),
        "vocabulary_norm": known.norm(dim=1).mean().item(),
        "nearest_word": tokenizer.decode([nearest]),
    }

"""A new word for the text tower: into the tokenizer, into the captions, and what has become of it."""

import torch
from torch.nn import functional as F

from unet import TextConditioned, Tokenizer


def learn_token(cfg, sd, texts: list[str]) -> tuple[list[str], dict[str, int] | None]:
    """Add cfg.token to the tokenizer -> (the adapter that trains its rows, {token: vectors}); ([], None) without one.

    Raises ValueError for a start without a token, a token that exists, captions without it, a start that is not one
    token, and a token table with other rows than the tokenizer has tokens, whose next row would not be the new word's.
    """
    if not cfg.token:
        if cfg.token_start or cfg.vectors != 1:
            raise ValueError(
                "token_start and vectors are of a new word, and --token names none: found "
                f"{cfg.token_start!r} and {cfg.vectors}"
            )
        return [], None
    tokenizer, rows = sd.tokenizer, sd.text.token_embedding.num_embeddings
    if rows != len(tokenizer):
        raise ValueError(
            f"{cfg.model}: a new word needs a token table of one row for each token, found {rows} rows "
            f"and {len(tokenizer)} tokens"
        )
    start = tokenizer.encode(cfg.token_start)
    if len(start) != 1:
        spelled = [tokenizer.decode([i]) for i in start]
        raise ValueError(
            f"token_start must be one token of the vocabulary, found {cfg.token_start!r}, which is "
            f"{len(start)}: {spelled}"
        )
    tokenizer.add(cfg.token, cfg.vectors)
    without = [text for text in texts if cfg.token.lower() not in text.lower()]
    if without:
        raise ValueError(
            f"{len(without)} of {len(texts)} captions lack the token {cfg.token!r}, {without[0]!r} for "
            f"one, and teach it nothing (--template names it)"
        )
    return [f"text.tokens:init={start[0]},vectors={cfg.vectors}"], {cfg.token: cfg.vectors}


@torch.no_grad()
def token_report(model: TextConditioned, tokenizer: Tokenizer, tokens: dict[str, int] | None) -> dict:
    """For the log: the norm of the learned rows, the mean norm of the vocabulary, and the word most like the first."""
    if not tokens:
        return {}
    table = model.text.token_embedding
    rows, known = table.token_rows.float(), table.weight.float()  # (n, D), (V, D)
    nearest = F.cosine_similarity(known, rows[:1]).argmax().item()
    return {
        "token_norm": rows.norm(dim=1).mean().item(),
        "vocabulary_norm": known.norm(dim=1).mean().item(),
        "nearest_word": tokenizer.decode([nearest]),
    }

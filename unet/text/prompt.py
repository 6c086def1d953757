"""Prompts as users of AUTOMATIC1111's web UI write them: weights in brackets, any length -> states of the text encoder.

    (word) x 1.1  ((word)) x 1.21  [word] / 1.1  (word:1.3) x 1.3  (a (b:2):1.5): b x 3  \\( \\) \\[ \\] \\\\ literal
    BREAK, in capitals, begins a new chunk      an opening bracket that nothing closes reaches to the end
    an added word with brackets in it, "[V]", is read before the brackets are, and has no weight of its own

A prompt becomes chunks of 75 tokens, each encoded alone between a start and an end token; their states follow each
other. With w_i the weight of a token, z_i its state and the means over all positions and channels of a chunk,

    z_i <- w_i z_i mean(z) / mean(w z)

as in the web UI's "Original" emphasis, save that there the means also run over the prompts that share a batch. A chunk
without weights keeps its states.
"""

import re
from collections.abc import Callable, Iterable, Sequence
from itertools import zip_longest

import torch
from einops import rearrange
from torch import Tensor

from unet.row import pack
from unet.text.encoder import TextEncoder
from unet.text.pair import NOTHING, TextPair, TokenizerPair, states_and_pooled
from unet.text.tokenizer import WORD_END, Tokenizer

STEP = 1.1  # what a pair of brackets multiplies or divides by
BACK = 20  # a chunk that is full ends at its last comma, if that is among so many last tokens
# escape, lone backslash, opener, end of a weighted group, closer, text, colon that ends no group
MARK = re.compile(r"\\[()\[\]\\]|\\|[(\[]|:\s*([+-]?(?:\d+\.?\d*|\.\d+))\s*\)|[)\]]|[^\\()\[\]:]+|:")
BREAK = re.compile(r"\s*\bBREAK\b\s*")

Weighted = tuple[int, float]  # token id and weight


def escape(text: str) -> str:
    """The prompt that shows a text as it is, its brackets, backslashes and BREAKs included; "a nut" is itself."""
    return re.sub(r"\bBREAK\b", r"B\\REAK", re.sub(r"[()\[\]\\]", r"\\\g<0>", text))


def keep_words(prompt: str, tokenizer: Tokenizer) -> str:
    """The prompt with every added word in it escaped that `parse` would take apart."""
    words = [word for word in tokenizer.added if escape(word) != word]
    # the longest first: one word may begin another
    pattern = "|".join(re.escape(word) for word in sorted(words, key=len, reverse=True))
    return re.sub(pattern, lambda match: escape(match[0]), prompt, flags=re.IGNORECASE) if words else prompt


def added_words(prompts: list[str], tokenizer: Tokenizer) -> set[str]:
    """The added words of a tokenizer that some of the prompts name."""
    ids = {i for prompt in prompts for chunk in chunks(prompt, tokenizer) for i, _ in chunk}
    return {word for word, vectors in tokenizer.added.items() if vectors[0] in ids}


def parse(prompt: str) -> list[list[tuple[str, float]]]:
    """The parts of a prompt between its BREAKs, each a list of (text, weight) with brackets and escapes resolved.

    Neighbours of equal weight are one text. A closing bracket that closes nothing is text, as is a weight outside
    round brackets; a backslash that escapes nothing is dropped.
    """
    segments, opened = [], {"(": [], "[": []}  # [text, or None for BREAK; weight]; where each open bracket began

    def close(bracket: str, factor: float) -> None:
        for segment in segments[opened[bracket].pop() :]:
            segment[1] *= factor

    for match in MARK.finditer(prompt):
        mark, number = match[0], match[1]
        if mark in opened:
            opened[mark].append(len(segments))
        elif number and opened["("]:
            close("(", float(number))
        elif mark == ")" and opened["("]:
            close("(", STEP)
        elif mark == "]" and opened["["]:
            close("[", 1 / STEP)
        elif mark[0] == "\\":
            segments.append([mark[1:], 1.0])
        else:
            for i, text in enumerate(BREAK.split(mark)):
                segments += [[None, 1.0], [text, 1.0]] if i else [[text, 1.0]]
    for bracket, factor in (("(", STEP), ("[", 1 / STEP)):
        while opened[bracket]:
            close(bracket, factor)
    return _joined(segments)


def _joined(segments: list[list]) -> list[list[tuple[str, float]]]:
    """Cut at the BREAKs, drop what is empty, join neighbours of equal weight."""
    parts = [[]]
    for text, weight in segments:
        if text is None:
            parts.append([])
        elif text and parts[-1] and parts[-1][-1][1] == weight:
            parts[-1][-1] = (parts[-1][-1][0] + text, weight)
        elif text:
            parts[-1].append((text, weight))
    return parts


def chunks(prompt: str, tokenizer: Tokenizer) -> list[list[Weighted]]:
    """A prompt's tokens in chunks of at most length - 2, one chunk or more; the vectors of one added token stay whole.

    A chunk that fills up gives what follows its last comma to the next, if that is at most 20 tokens.
    """
    parts = parse(keep_words(prompt, tokenizer))
    *closed, last = (_cut(_units(part, tokenizer), tokenizer) for part in parts)
    whole = [chunk for part in closed for chunk in part or [[]]] + last  # BREAK closes a chunk, even an empty one
    return whole or [[]]


def caption_tokens(tokenizer: Tokenizer, captions: Sequence[str], n: int = 1) -> Tensor:
    """Captions, which are texts without weights, in chunks as a prompt is -> ids (B, 77 n), n at least as given.

    Of XL's two tokenizers (B, 2 x 77 n), NOTHING in each place of the empty caption. The text encoder reads them by
    `in_chunks`. Where every caption is one chunk the ids are those of tokenizer.tokens.
    """
    n = max(n, most_chunks(tokenizer, captions))
    if n == 1:
        return tokenizer.tokens(list(captions))
    both = (tokenizer, tokenizer.second) if isinstance(tokenizer, TokenizerPair) else (tokenizer,)
    ids = []
    for words in both:
        rows = [chunks(escape(caption), words) for caption in captions]
        padded = [row + [[]] * (n - len(row)) for row in rows]
        ids.append(torch.tensor([[i for chunk in row for i in words.row([i for i, _ in chunk])] for row in padded]))
    if len(both) == 1:
        return ids[0]
    empty = torch.tensor([not caption for caption in captions])[:, None]
    return torch.where(empty, NOTHING, torch.cat(ids, dim=1))


def most_chunks(tokenizer: Tokenizer, captions: Iterable[str]) -> int:
    """The chunks of the longest caption, in the tokenizer that needs more of them."""
    both = (tokenizer, tokenizer.second) if isinstance(tokenizer, TokenizerPair) else (tokenizer,)
    short = tokenizer.length - 2 if not tokenizer.added else 0  # bytes; each token of the vocabulary is one at least
    long = [text for text in dict.fromkeys(captions) if len(text.encode()) > short]
    return max((len(chunks(escape(text), words)) for text in long for words in both), default=1)


def _units(part: list[tuple[str, float]], tokenizer: Tokenizer) -> list[list[Weighted]]:
    """What may not be cut: one token each, or all vectors of an added one."""
    vectors = {ids[0]: len(ids) for ids in tokenizer.added.values()}
    units = []
    for text, weight in part:
        ids = [(i, weight) for i in tokenizer.encode(text)]
        while ids:
            size = vectors.get(ids[0][0], 1)
            units.append(ids[:size])
            ids = ids[size:]
    return units


def _cut(units: list[list[Weighted]], tokenizer: Tokenizer) -> list[list[Weighted]]:
    room, comma = tokenizer.length - 2, tokenizer.vocab["," + WORD_END]
    done, chunk = [], []
    for unit in units:
        if len(chunk) == room and unit[0][0] != comma:
            commas = [i for i in range(max(room - BACK, 0), room) if chunk[i][0] == comma]
            end = commas[-1] + 1 if commas else room
            done.append(chunk[:end])
            chunk = chunk[end:]
        if len(chunk) + len(unit) > room:
            done.append(chunk)
            chunk = []
        chunk = chunk + unit
    return done + [chunk] if chunk else done


def encode_prompts(encoder: TextEncoder | TextPair, tokenizer: Tokenizer, prompts: list[str]) -> Tensor:
    """B prompts -> states (B, 77 n, D) on the encoder's device, n the chunks of the longest prompt.

    Of XL's two encoders, rows (B, 77 n D + P) of states and pooled text (pair.py), that of the first chunk.
    The other prompts get empty chunks, so a prompt and its negative that are encoded in one call are equally long. ""
    and "  " are the empty prompt. Raises ValueError for a single str, and where encoder and tokenizer do not fit.
    """
    if isinstance(prompts, str):
        raise ValueError(f"expected a list of prompts, found one prompt, {prompts!r}")
    if not isinstance(encoder, TextPair):
        return encode_chunks(encoder, chunk_rows(prompts, tokenizer), tokenizer)
    both = [chunk_rows(prompts, words) for words in (tokenizer, tokenizer.second)]
    n = max(len(rows[0]) for rows in both)  # a "!" is a token of its own in the second, so that it may need more
    first, second = ([row + [[]] * (n - len(row)) for row in rows] for rows in both)
    states = encode_chunks(encoder.first, first, tokenizer)
    others, pooled = encode_chunks(encoder.second, second, tokenizer.second, states_and_pooled)
    return pack(torch.cat([states, others], dim=2), pooled[:, 0])


def chunk_rows(prompts: list[str], tokenizer: Tokenizer) -> list[list[list[Weighted]]]:
    """The chunks of each prompt, n of all: the shorter prompts get empty ones."""
    columns = zip_longest(*(chunks(prompt, tokenizer) for prompt in prompts), fillvalue=[])
    return [[*row] for row in zip(*columns)]


def encode_chunks(
    encoder: TextEncoder,
    rows: list[list[list[Weighted]]],
    tokenizer: Tokenizer,
    encode: Callable[[TextEncoder, Tensor], tuple[Tensor, Tensor]] | None = None,
) -> Tensor | tuple[Tensor, Tensor]:
    """B rows of n chunks -> weighed states (B, 77 n, D), and with `encode` its pooled vectors (B, n, P) too."""
    known = encoder.token_embedding.num_embeddings
    if len(tokenizer) > known:
        raise ValueError(f"the tokenizer has {len(tokenizer)} tokens, the text encoder {known} rows for them")
    flat = [chunk for row in rows for chunk in row]  # B n chunks
    device = next(encoder.parameters()).device
    tokens = torch.tensor([tokenizer.row([i for i, _ in chunk]) for chunk in flat], device=device)  # (B n, 77)
    padding = [[1.0] * (tokenizer.length - 1 - len(chunk)) for chunk in flat]
    weights = [[1.0, *(weight for _, weight in chunk), *rest] for chunk, rest in zip(flat, padding)]
    states, pooled = (encoder(tokens), None) if encode is None else encode(encoder, tokens)
    states = emphasise(states, torch.tensor(weights, device=device))  # (B n, 77, D)
    states = rearrange(states, "(b n) l d -> b (n l) d", b=len(rows))
    return states if pooled is None else (states, pooled.unflatten(0, (len(rows), -1)))


def emphasise(states: Tensor, weights: Tensor) -> Tensor:
    """z_i <- w_i z_i mean(z) / mean(w z): states (B, L, D), weights (B, L), means over L and D, in float32."""
    weighted = states.float() * weights[:, :, None]  # (B, L, D)
    before, after = (z.float().mean(dim=(1, 2), keepdim=True) for z in (states, weighted))  # (B, 1, 1)
    plain = (weights == 1).all(dim=1)[:, None, None]  # (B, 1, 1)
    return torch.where(plain, states, (weighted * (before / after)).to(states.dtype))

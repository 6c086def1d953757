"""The two text encoders of Stable Diffusion XL as one, and its two tokenizers.

    states = [h_1, h_2] on features        h_i: the penultimate layer's of encoder i        (B, L, D_1 + D_2)
    pooled = P final_norm(h_2 after all of its layers), at the first end token              (B, P)

Podell et al. 2023, arXiv 2307.01952, sec. 2.1. What they make of a text is a row of numbers (unet/row.py).
"""

from dataclasses import dataclass

import torch
from einops import rearrange
from torch import Tensor, nn

from unet.row import pack, sized
from unet.text.encoder import TextConfig, TextEncoder
from unet.text.tokenizer import Tokenizer

NOTHING = -1  # stands for every token of no text


@dataclass(frozen=True)
class PairConfig:
    """The shapes of two text encoders, of which the second makes the pooled vector."""

    first: TextConfig
    second: TextConfig

    @property
    def width(self) -> int:
        """D of the states."""
        return self.first.width + self.second.width

    @property
    def projection(self) -> int:
        """P of the pooled vector."""
        return self.second.projection

    @property
    def max_length(self) -> int:
        """Positions of both."""
        return self.first.max_length

    @property
    def vocab_size(self) -> int:
        """Rows of either token table."""
        return self.first.vocab_size


class TextPair(nn.Module):
    """row = [states, pooled, sizes] of the tokens of two tokenizers. ValueError for encoders that do not fit."""

    def __init__(self, first: TextEncoder, second: TextEncoder):
        super().__init__()
        self.first, self.second = first, second
        if not second.config.projection:
            raise ValueError("the second text encoder needs a projection, which makes the pooled text, found none")
        lengths = first.config.max_length, second.config.max_length
        if lengths[0] != lengths[1]:
            raise ValueError(f"both text encoders need as many positions, found {lengths[0]} and {lengths[1]}")

    @property
    def config(self) -> PairConfig:
        """The shapes of both."""
        return PairConfig(self.first.config, self.second.config)

    def forward(self, tokens: Tensor) -> Tensor:
        """tokens (B, 2 L n) ids of both tokenizers in n chunks, NOTHING for no text, sizes or not -> rows (B, N).

        Each chunk is read alone; the pooled text is that of the first.
        """
        length = self.config.max_length
        n = tokens.shape[1] // (2 * length)
        first, second, sizes = tokens.split([n * length] * 2 + [tokens.shape[1] - 2 * n * length], 1)
        ids = [part.clamp(min=0).reshape(-1, length) for part in (first, second)]  # (B n, L)
        states, pooled = states_and_pooled(self.second, ids[1])
        states = torch.cat([self.first(ids[0]), states], dim=2)  # (B n, L, D)
        row = pack(rearrange(states, "(b n) l d -> b (n l) d", n=n), pooled[::n])
        return sized(row * (first[:, :1] != NOTHING), sizes)


def in_chunks(text: TextEncoder | TextPair, tokens: Tensor) -> Tensor:
    """text(tokens), each chunk of a row alone: tokens (B, 77 n) -> states (B, 77 n, D); of a pair its rows."""
    length = text.config.max_length
    if isinstance(text, TextPair) or tokens.shape[1] <= length:
        return text(tokens)
    return rearrange(text(tokens.reshape(-1, length)), "(b n) l d -> b (n l) d", b=len(tokens))


def states_and_pooled(encoder: TextEncoder, tokens: Tensor) -> tuple[Tensor, Tensor]:
    """tokens (B, L) -> states (B, L, D) as from the encoder, and pooled (B, P), which reads all layers.

    It is read at the first end token, whose id follows the start's; new words have larger ids than both.
    """
    c, x = encoder.config, encoder.embed(tokens)
    states = x
    for i, layer in enumerate(encoder.layers):
        states = x if i == c.layers - c.skip else states
        x = layer(x)  # (B, L, D)
    states = states if c.skip else x
    last = encoder.final_norm(x)
    ends = (tokens == tokens[:, :1] + 1).int().argmax(1)  # (B,)
    pooled = encoder.text_projection(last[torch.arange(len(x), device=x.device), ends])
    return (encoder.final_norm(states) if c.norm else states), pooled


def encoders(text: TextEncoder | TextPair) -> dict[str, TextEncoder]:
    """The encoder, or both, by the start of the names of their parameters: "", or "first." and "second."."""
    return {"first.": text.first, "second.": text.second} if isinstance(text, TextPair) else {"": text}


class TokenizerPair(Tokenizer):
    """The first tokenizer, and with it the second, which fills a row with another token."""

    def __init__(self, first: Tokenizer, second: Tokenizer):
        super().__init__(first.vocab, first.merges, first.pad_token, first.length)
        self.second = second
        for token, ids in first.added.items():
            super().add(token, len(ids))

    def add(self, token: str, vectors: int = 1) -> list[int]:
        """The new token in both -> its ids, which are equal."""
        self.second.add(token, vectors)
        return super().add(token, vectors)

    def tokens(self, texts: list[str]) -> Tensor:
        """Texts -> ids (B, 2 L): those of either tokenizer. The empty text is no text, NOTHING in each place."""
        ids = torch.cat([super().tokens(texts), self.second.tokens(texts)], dim=1)
        return torch.where(torch.tensor([not text for text in texts])[:, None], NOTHING, ids)

"""Byte-pair encoding as CLIP does it: text to pieces, pieces to bytes, bytes merged (Sennrich et al. 2016).

    1. Unicode NFC, white space to single spaces, lower case
    2. cut into pieces: contractions ('s 't 're 've 'm 'll 'd), runs of letters, single digits, runs of anything else
    3. a piece is its UTF-8 bytes, one symbol each, the last marked </w>; merge the adjacent pair that was learned
       first, as long as there is one

arXiv 1508.07909; Radford et al. 2021, section 2.4. OpenAI's own code also repairs mojibake and HTML entities first,
which this does not.
"""

import re
import unicodedata
from collections import Counter, defaultdict
from collections.abc import Iterable

START, END, WORD_END = "<|startoftext|>", "<|endoftext|>", "</w>"
WHITE = "\t\n\v\f\r \x85\xa0\u1680\u2000-\u200a\u2028\u2029\u202f\u205f\u3000"  # Python's own \s has \x1c to \x1f too
SPACES = re.compile(f"[{WHITE}]+")
# applied to a text's kinds, see below; a digit stands alone and a letter z is in none of the literal alternatives
PIECE = re.compile(r"<\|(?:start|end)oftext\|>|'(?:s|t|re|ve|m|ll|d)|[a-z]+|[0-9]|[^ a-z0-9]+")


class Kinds(dict):
    """Code point -> a character of its kind: ASCII is itself, then z a letter, 0 a number, space, ! anything else.

    The standard library's `re` has no classes for Unicode's categories; text.translate(KINDS) is as long as the text,
    so PIECE over the kinds cuts the text itself. Filled as characters occur.
    """

    def __missing__(self, code: int) -> str:
        character = chr(code)
        major = unicodedata.category(character)[0]
        if SPACES.match(character):
            kind = " "
        elif code < 128 and major != "C":
            kind = character
        else:
            kind = {"L": "z", "N": "0"}.get(major, "!")
        self[code] = kind
        return kind


KINDS = Kinds()


def byte_symbols() -> list[str]:
    """The character that stands for each of the 256 bytes: itself where it prints, else one from 256 on (GPT-2)."""
    printed = {*range(33, 127), *range(161, 173), *range(174, 256)}
    others = iter(range(256, 512))
    return [chr(byte if byte in printed else next(others)) for byte in range(256)]


BYTES = byte_symbols()
BYTE_OF = {symbol: byte for byte, symbol in enumerate(BYTES)}
ALPHABET = sorted(BYTES)  # by code point: the bytes that stand for themselves first, the order of CLIP's ids


def normalise(text: str) -> str:
    """NFC, single spaces, lower case, character by character: a capital sigma is never the final one."""
    return SPACES.sub(" ", unicodedata.normalize("NFC", text)).replace("Σ", "σ").lower()


def pieces(text: str) -> list[str]:
    """The pieces of a normalised text, step 2."""
    cut = [text[match.start() : match.end()] for match in PIECE.finditer(text.translate(KINDS))]
    return [part for piece in cut for part in (_inside(piece) if piece in (START, END) else (piece,))]


def _inside(special: str) -> tuple[str, str, str]:
    """A special token that was written in capitals is not one: <|, endoftext, |>."""
    return special[:2], special[2:-2], special[-2:]


def symbols_of(piece: str) -> list[str]:
    """One symbol per UTF-8 byte, the last with the mark of a word's end."""
    symbols = [BYTES[byte] for byte in piece.encode()]
    return [*symbols[:-1], symbols[-1] + WORD_END]


def merge(symbols: list[str], pair: tuple[str, str]) -> list[str]:
    """Every occurrence of the pair made one symbol, from left to right."""
    merged = []
    for symbol in symbols:
        if merged and (merged[-1], symbol) == pair:
            # a symbol made here cannot begin the same pair again: it is longer than the pair's first
            merged[-1] += symbol
        else:
            merged.append(symbol)
    return merged


def learn(counts: dict[str, int], number: int) -> list[tuple[str, str]]:
    """At most `number` merges: each the most frequent adjacent pair, ties to the first in code point order.

    counts: piece -> how often. Stops when no pair occurs twice.
    """
    words = [symbols_of(piece) for piece in counts]
    often = list(counts.values())
    pairs, where, merges = Counter(), defaultdict(set), []

    def count(word: int, sign: int) -> None:
        for pair in zip(words[word], words[word][1:]):
            pairs[pair] += sign * often[word]
            where[pair].add(word)

    for word in range(len(words)):
        count(word, 1)
    while len(merges) < number and pairs:
        best = min(pairs, key=lambda pair: (-pairs[pair], pair))
        if pairs.pop(best) < 2:
            break
        merges.append(best)
        for word in where.pop(best):
            count(word, -1)
            words[word] = merge(words[word], best)
            count(word, 1)
        del pairs[best], where[best]  # the subtraction made them again
    return merges


def vocabulary(merges: Iterable[tuple[str, str]]) -> dict[str, int]:
    """{token: id}: 256 bytes, 256 bytes that end a word, one token per merge, start, end; CLIP's order."""
    ends = [symbol + WORD_END for symbol in ALPHABET]
    tokens = [*ALPHABET, *ends, *(first + second for first, second in merges), START, END]
    return {token: i for i, token in enumerate(dict.fromkeys(tokens))}

"""CLIP's tokenizer: text -> rows of ids, from and to the files of others. Its algorithm is in bytepair.py.

Ids equal those of transformers' CLIPTokenizer. That means two things for text written like a token: the special tokens
are recognised as such anywhere in the text, and so is a padding token of its own, which in Stable Diffusion 2's folders
is "!".
"""

import json
import re
import warnings
import zlib
from collections import Counter
from collections.abc import Iterable
from gzip import open as open_gzip
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from border import checked, read_json, read_lfs_pointer, read_text
from unet.text.bytepair import (
    BYTE_OF,
    END,
    SPACES,
    START,
    WORD_END,
    learn,
    merge,
    normalise,
    pieces,
    symbols_of,
    vocabulary,
)

OPENAI_CHARACTERS = 10_000_000  # more than its 3,210,000
OPENAI_MERGES = 48_894  # that many lines of bpe_simple_vocab_16e6.txt.gz belong to the vocabulary, after one of header


class Tokenizer:
    """vocab {token: id}, merges in the order they were learned; pad: the token that fills a row up to `length`.

    Raises ValueError unless the ids are 0 .. n - 1 and every byte, special token and merge has one.
    """

    def __init__(self, vocab: dict[str, int], merges: list[tuple[str, str]], pad: str = END, length: int = 77):
        if sorted(vocab.values()) != list(range(len(vocab))):
            raise ValueError(f"a vocabulary of {len(vocab)} tokens needs the ids 0 .. {len(vocab) - 1}, each once")
        missing = [token for token in (*vocabulary(merges), pad) if token not in vocab]
        if missing:
            raise ValueError(f"{len(missing)} tokens are not in the vocabulary of {len(vocab)}, such as {missing[:3]}")
        self.vocab, self.merges, self.length, self.pad_token = vocab, merges, length, pad
        self.start, self.end, self.pad = vocab[START], vocab[END], vocab[pad]
        self.added: dict[str, list[int]] = {}  # token -> its ids, one per vector
        self._ranks = {pair: rank for rank, pair in enumerate(merges)}
        self._tokens = {i: token for token, i in vocab.items()}
        self._special = one_of({START, END, pad})
        self._added, self._added_ids = one_of(()), {}
        self._words, self._texts = {}, {}  # the ids of what was encoded before

    @classmethod
    def from_files(cls, vocab: str | Path, merges: str | Path, **fields) -> "Tokenizer":
        """vocab.json and merges.txt as transformers writes them; fields: `pad` and `length`."""
        lines = [line.removesuffix("\r") for line in read_text(merges).split("\n")]
        pairs = read_merges(lines[lines[0].startswith("#version") :], merges)
        ids = checked(read_json(vocab), dict[str, int], f"{vocab}: ids", 0)
        try:
            return cls(ids, pairs, **fields)
        except ValueError as error:
            raise ValueError(f"{vocab}: {error}") from None

    @classmethod
    def from_openai(cls, path: str | Path) -> "Tokenizer":
        """OpenAI's bpe_simple_vocab_16e6.txt.gz, which holds more merges than CLIP uses."""
        with open(path, "rb") as file:
            if (pointer := read_lfs_pointer(file.read(200))) is not None:
                raise ValueError(f"{path}: {pointer}")
        try:
            with open_gzip(path, "rt", encoding="utf-8") as file:
                lines = file.read(OPENAI_CHARACTERS).split("\n")
        except (OSError, EOFError, zlib.error, UnicodeDecodeError) as error:
            raise ValueError(f"{path}: not a whole gzip file of text: {error}") from None
        if len(lines) <= OPENAI_MERGES:
            raise ValueError(f"{path}: expected {OPENAI_MERGES + 1} lines or more, found {len(lines)}")
        merges = read_merges(lines[1 : OPENAI_MERGES + 1], path)
        return cls(vocabulary(merges), merges)

    @classmethod
    def from_folder(cls, folder: str | Path) -> "Tokenizer":
        """The tokenizer folder of a diffusers pipeline: vocab.json and merges.txt, or tokenizer.json, and settings.

        Added tokens come back too: t, t_1, t_2 in a row as one token of three vectors. As in transformers, what both
        special_tokens_map.json and tokenizer_config.json say is taken from the first, unless the second has
        added_tokens_decoder. Raises ValueError, with the file's name, for a value of another type.
        """
        folder = Path(folder)
        files = ("special_tokens_map.json", "tokenizer_config.json", "added_tokens.json", "tokenizer.json")
        special, config, added, whole = (read_json(folder / f) if (folder / f).exists() else {} for f in files)
        if "added_tokens_decoder" in config:
            special, added = {}, {}  # files of older versions
        pad = content_of((config | special).get("pad_token") or END, f"{folder}: pad_token")
        length = checked(config.get("model_max_length", 77), float | None, f"{folder}: model_max_length", 3)
        fields = {"pad": pad, "length": int(length) if length is not None and length < 1e6 else 77}
        model = checked(whole.get("model", {}), dict[str, Any], f"{folder / files[3]}: model")
        if (folder / "vocab.json").exists() and (folder / "merges.txt").exists():
            tokenizer = cls.from_files(folder / "vocab.json", folder / "merges.txt", **fields)
        elif model.get("type") == "BPE":
            merges = checked(model.get("merges"), list[str | list[str]], f"{folder / files[3]}: merges")
            lines = [line if isinstance(line, str) else " ".join(line) for line in merges]
            vocab = checked(model.get("vocab"), dict[str, int], f"{folder / files[3]}: vocab", 0)
            tokenizer = cls(vocab, read_merges(lines, folder / files[3]), **fields)
        else:
            found = f"a tokenizer.json of type {model.get('type')}" if whole else "neither"
            expected = "vocab.json and merges.txt, or a byte-pair tokenizer.json"
            raise ValueError(f"{folder}: expected {expected}, found {found}")
        names = {i: token for token, i in checked(added, dict[str, int], f"{folder / files[2]}: ids", 0).items()}
        decoder = config.get("added_tokens_decoder", {})
        if not all(
            i.isdecimal() for i in checked(decoder, dict[str, Any], f"{folder / files[1]}: added_tokens_decoder")
        ):
            raise ValueError(
                f"{folder / files[1]}: the names in added_tokens_decoder must be ids, found {[*decoder][:3]}"
            )
        names |= {int(i): content_of(token, f"{folder / files[1]}: token {i}") for i, token in decoder.items()}
        for token in checked(whole.get("added_tokens", []), list[dict[str, Any]], f"{folder / files[3]}: added_tokens"):
            number = checked(token.get("id"), int, f"{folder / files[3]}: id of an added token", 0)
            names[number] = content_of(token, f"{folder / files[3]}: token {number}")
        names = {i: names[i] for i in sorted(names) if i >= len(tokenizer.vocab)}
        if [*names] != list(range(len(tokenizer), len(tokenizer) + len(names))):
            raise ValueError(f"{folder}: expected added tokens with ids from {len(tokenizer)} on, found {names}")
        tokenizer._restore([*names.values()])
        return tokenizer

    @classmethod
    def train(cls, texts: Iterable[str], size: int, length: int = 77) -> "Tokenizer":
        """A vocabulary of `size` tokens, or fewer where the texts have no pair left that occurs twice.

        512 of them are bytes and 2 special. Raises ValueError for a smaller size.
        """
        if size < 514:
            raise ValueError(f"512 bytes and 2 special tokens do not fit into a vocabulary of {size}")
        counts = Counter()
        for text, times in Counter(texts).items():
            for piece in pieces(normalise(text)):
                counts[piece] += times
        merges = learn(counts, size - 514)
        return cls(vocabulary(merges), merges, length=length)

    def save(self, folder: str | Path) -> None:
        """Write the files that `from_folder` and transformers' CLIPTokenizer read."""
        folder = Path(folder)
        folder.mkdir(parents=True, exist_ok=True)
        special = {"bos_token": START, "eos_token": END, "unk_token": END, "pad_token": self.pad_token}
        flags = {"lstrip": False, "rstrip": False, "single_word": False, "normalized": True, "special": False}
        added = {str(i): {"content": self._tokens[i], **flags} for i in range(len(self.vocab), len(self))}
        config = {"tokenizer_class": "CLIPTokenizer", "model_max_length": self.length, "do_lower_case": True}
        contents = {
            "vocab.json": self.vocab,
            "special_tokens_map.json": special,
            "tokenizer_config.json": config | special | ({"added_tokens_decoder": added} if added else {}),
        }
        for name, content in contents.items():
            (folder / name).write_text(json.dumps(content, ensure_ascii=False, indent=1) + "\n", encoding="utf-8")
        lines = ["#version: 0.2", *map(" ".join, self.merges)]
        (folder / "merges.txt").write_text("\n".join(lines) + "\n", encoding="utf-8")

    def __len__(self) -> int:
        """Number of ids: the rows that a token table for it has."""
        return len(self._tokens)

    def add(self, token: str, vectors: int = 1) -> list[int]:
        """A new token for textual inversion, read in any capitalisation -> its ids, the next free ones.

        Several vectors are the tokens t, t_1, t_2, ..., all of which the one word t in a text stands for. Raises
        ValueError for a word that is a token already, white space, or more vectors than fit between start and end.
        """
        names = [token, *(f"{token}_{i}" for i in range(1, vectors))]
        if not 1 <= vectors <= self.length - 2:
            raise ValueError(f"a token has 1 .. {self.length - 2} vectors, found {vectors}")
        if not token or SPACES.search(token):
            raise ValueError(f"a new token is one word without white space, found {token!r}")
        if "BREAK" in token:
            raise ValueError(f"BREAK begins a new chunk of a prompt and cannot be in a token, found {token!r}")
        for name in map(normalise, names):
            if {name, name + WORD_END} & self.vocab.keys() or name in self._added_ids:
                raise ValueError(f"{name!r} is in the vocabulary of {len(self)} tokens already: take another name")
        return self._append(names)

    def _append(self, names: list[str]) -> list[int]:
        """The next free ids for the vectors of one token; its first name stands for all of them."""
        ids = list(range(len(self), len(self) + len(names)))
        self.added[names[0]] = ids
        self._tokens |= dict(zip(ids, names))
        self._added_ids |= {normalise(name): [i] for name, i in zip(names, ids)} | {normalise(names[0]): ids}
        self._added = one_of(self._added_ids)
        self._texts.clear()
        return ids

    def _restore(self, names: list[str]) -> None:
        """Adds the tokens that a file lists, in the order of their ids."""
        while names:
            vectors = 1
            while vectors < len(names) and names[vectors] == f"{names[0]}_{vectors}":
                vectors += 1
            self._append(names[:vectors])
            names = names[vectors:]

    def encode(self, text: str) -> list[int]:
        """The ids of a text, without start and end, of any length."""
        if text not in self._texts:
            ids = []
            for i, part in enumerate(self._special.split(text)):  # text, special token, text, ...
                ids += [self.vocab[part]] if i % 2 else self._encode_plain(part)
            self._texts[text] = tuple(ids)
        return list(self._texts[text])

    def _encode_plain(self, text: str) -> list[int]:
        ids = []
        for i, part in enumerate(self._added.split(normalise(text))):  # text, added token, text, ...
            if i % 2:
                ids += self._added_ids[part]
                continue
            for piece in pieces(part):
                if piece not in self._words:
                    self._words[piece] = [self.vocab[symbol] for symbol in self._merged(piece)]
                ids += self._words[piece]
        return ids

    def _merged(self, piece: str) -> list[str]:
        """Step 3 of byte-pair encoding."""
        symbols, never = symbols_of(piece), len(self._ranks)
        while len(symbols) > 1:
            pair = min(zip(symbols, symbols[1:]), key=lambda pair: self._ranks.get(pair, never))
            if pair not in self._ranks:
                break
            symbols = merge(symbols, pair)
        return symbols

    def row(self, ids: list[int]) -> list[int]:
        """start, ids, end, padding: `length` ids in all, for at most length - 2."""
        return [self.start, *ids, self.end, *[self.pad] * (self.length - 2 - len(ids))]

    def tokens(self, texts: list[str]) -> Tensor:
        """Texts -> ids (B, length) int64, with start, end and padding. A warning names the words that it cuts off."""
        if isinstance(texts, str):
            raise ValueError(f"expected a list of texts, found one text, {texts!r}")
        room = self.length - 2
        encoded = [self.encode(text) for text in texts]
        cut = [self.decode(ids[room:]) for ids in encoded if len(ids) > room]
        if cut:
            lost = "; ".join(repr(words if len(words) <= 100 else words[:100] + "...") for words in cut[:3])
            lost += f" and {len(cut) - 3} more" * (len(cut) > 3)
            warnings.warn(f"{len(cut)} of {len(encoded)} texts exceed {room} tokens; cut off: {lost}", stacklevel=2)
        return torch.tensor([self.row(ids[:room]) for ids in encoded])  # (B, L)

    def decode(self, ids: Iterable[int]) -> str:
        """The text of ids up to the first end, in the tokenizer's spelling: lower case, a space after each piece."""
        text = b""
        for i in map(int, ids):
            if i == self.end:
                break
            if i not in self._tokens:
                raise ValueError(f"ids are 0 .. {len(self) - 1}, found {i}")
            token = self._tokens[i]
            if i >= len(self.vocab):
                text += token.encode() + b" "
            elif i != self.start:
                text += bytes(BYTE_OF[symbol] for symbol in token.removesuffix(WORD_END))
                text += b" " * token.endswith(WORD_END)
        return text.decode(errors="replace").strip()


def one_of(tokens: Iterable[str]) -> re.Pattern:
    """A pattern for split(): any of the tokens, the longest where several begin; without tokens it never matches."""
    return re.compile(f"({'|'.join(map(re.escape, sorted(tokens, key=len, reverse=True))) or '(?!)'})")


def content_of(token: str | dict, name: str) -> str:
    """The text of a token, which older files write as an object with `content`. name: what errors call it."""
    return checked(token["content"] if isinstance(token, dict) and "content" in token else token, str, name)


def read_merges(lines: list[str], source: str | Path) -> list[tuple[str, str]]:
    """One merge a line, two symbols with a space between; blank lines are skipped. ValueError for any other line."""
    merges = [tuple(line.split(" ")) for line in lines if line.strip()]
    wrong = next((merge for merge in merges if len(merge) != 2), None)
    if wrong is not None:
        raise ValueError(f"{source}: expected two symbols in each line, found {' '.join(wrong)!r}")
    return merges

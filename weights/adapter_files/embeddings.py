"""Textual inversion files of other tools: a word and its rows of the token table (Gal et al. 2022, arXiv 2208.01618).

    diffusers       {"<cat-toy>": (D,) or (n, D)}
    A1111           {"string_to_param": {"*": (n, D)}, "name": ...}, which it calls by the name of the file
    kohya           {"emb_params": (n, D)}
    a bare tensor   (D,) or (n, D)
    SDXL            {"clip_l": (n, 768), "clip_g": (n, 1280)}, rows of each text encoder, called as the file

A word of n rows stands for n ids in a row, as in diffusers.
"""

import sys
from dataclasses import replace
from pathlib import Path

import torch
from torch import Tensor, nn

from unet.text.encoder import TextEncoder
from unet.text.pair import TextPair, encoders
from unet.text.tokenizer import Tokenizer
from weights.adapter_files.lora_import import is_foreign
from weights.adapter_files.native import load_adapter
from weights.formats import files, pickled, safe
from weights.layouts.families import VERSIONS, describe_file

NAMELESS = ("*", "emb_params")  # keys that stand for any word
XL = ("clip_l", "clip_g")  # keys of the first and the second text encoder


def read_embedding(path: str | Path, name: str | None = None) -> tuple[str, list[Tensor]]:
    """(token, rows (n, D) of each text encoder, of which Stable Diffusion XL has two).

    The token is `name`, else the name in the file, else its key, else the file's own name. Raises ValueError for a file
    with several words, and for one that is no embedding.
    """
    path = Path(path)
    if not path.is_file():
        raise ValueError(f"{path}: expected a textual inversion file, found no such file")
    content = safe.read(path)[0] if files.sniff(path) == "safetensors" else unpickled(path)
    inside = None
    if isinstance(content, dict) and "string_to_param" in content:
        inside, content = content.get("name"), as_dict(content["string_to_param"])
    content = {"*": content} if isinstance(content, Tensor) else content
    if not isinstance(content, dict):
        raise ValueError(f"{path}: expected a textual inversion file, found a {type(content).__name__}")
    if content.keys() & set(XL):
        if content.keys() != set(XL) or len({len(as_rows(path, key, content[key])) for key in XL}) != 1:
            raise ValueError(
                f"{path}: an embedding of Stable Diffusion XL, expected as many rows for clip_l as for clip_g, found "
                f"{', '.join(f'{key} {list(rows.shape)}' for key, rows in content.items())}"
            )
        return name or path.stem, [as_rows(path, key, content[key]) for key in XL]
    words = {str(key): value for key, value in content.items() if isinstance(value, Tensor)}
    if len(words) != 1 or len(content) != 1:
        raise ValueError(
            f"{path}: expected one word and its rows, found {describe_file(words) if words else 'no tensor'}"
        )
    ((key, rows),) = words.items()
    inside = inside if isinstance(inside, str) else None
    return name or inside or (key if key not in NAMELESS else path.stem), [as_rows(path, key, rows)]


def as_rows(path: Path, key: str, rows: object) -> Tensor:
    """Rows (n, D) of a file's tensor (D,) or (n, D). ValueError for any other."""
    if not isinstance(rows, Tensor):
        raise ValueError(f"{path}: expected rows (n, D), found {key!r}, a {type(rows).__name__}")
    rows = rows.detach()[None] if rows.dim() == 1 else rows.detach()
    if rows.dim() != 2 or not rows.numel() or not rows.is_floating_point():
        raise ValueError(f"{path}: expected rows (n, D), found {key!r} {list(rows.shape)} of {rows.dtype}")
    return rows


def unpickled(path: Path) -> object:
    """The object in a torch.save file, which may hold a ParameterDict, as the code of the paper's authors wrote it."""
    with torch.serialization.safe_globals([nn.ParameterDict]):
        return pickled.read(path)


def as_dict(words: object) -> object:
    """A ParameterDict as a plain dict, anything else as it is; an older one keeps its values in `_parameters`."""
    return dict(getattr(words, "_parameters", words)) if isinstance(words, (dict, nn.Module)) else words


def add_embedding(tokenizer: Tokenizer, text: TextEncoder | TextPair, path: str | Path, name: str | None = None) -> str:
    """Add the word of a file to the tokenizer and the text encoder, in place; returns its token for prompts.

    Raises ValueError as `read_embedding`, for another width, naming both bases, and for a token that exists.
    """
    token, rows = read_embedding(path, name)
    parts = [*encoders(text).values()]
    theirs, ours = ([part.shape[1] for part in rows], [part.config.width for part in parts])
    if theirs != ours:
        theirs, ours = (f"{' and '.join(map(str, w))} wide, of {version_of(w)}" for w in (theirs, ours))
        what = "these text encoders" if len(parts) > 1 else "this text encoder"
        raise ValueError(f"{path}: an embedding {theirs}, expected one for {what}, {ours}")
    for part in parts:
        if len(tokenizer) != (known := part.token_embedding.num_embeddings):
            raise ValueError(f"{path}: new ids begin at {len(tokenizer)}, and the text encoder has {known} rows")
    try:
        tokenizer.add(token, len(rows[0]))
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from None
    for part, new in zip(parts, rows):
        add_tokens(part, new)
    return token


def version_of(widths: list[int]) -> str:
    """ "Stable Diffusion 2", by the widths of its text encoders."""
    return f"Stable Diffusion {'XL' if len(widths) > 1 else VERSIONS.get(widths[0], '?')}"


@torch.no_grad()
def add_tokens(encoder: TextEncoder, rows: Tensor) -> None:
    """Append rows (n, D) to the token table, for tokens that the tokenizer added. ValueError for another D."""
    width = encoder.config.width
    if rows.ndim != 2 or rows.shape[1] != width:
        raise ValueError(
            f"new token rows must be (n, {width}), the width of the text encoder, found {tuple(rows.shape)}"
        )
    old = encoder.token_embedding
    table = torch.cat([old.weight, rows.to(old.weight)])
    encoder.token_embedding = nn.Embedding.from_pretrained(table, freeze=not old.weight.requires_grad)
    encoder.config = replace(encoder.config, vocab_size=len(table))


def add_words(tokenizer: Tokenizer, files: list[str]) -> None:
    """Add the words that adapter files of this package learned to the tokenizer. apply_adapters adds their rows."""
    for path in files:
        header = {} if is_foreign(path) else load_adapter(path)[1]
        for token, vectors in (header.get("tokens") or {}).items():
            tokenizer.add(token, vectors)


def check_words(learned: list[str], files: dict[str, str], named: set[str]) -> None:
    """Print which word each embedding file stands for, and which learned word no prompt names.

    learned: words of the adapter files. files: {word: its embedding file}. named: the words that some prompt names.
    Raises ValueError for an embedding that no prompt names.
    """
    for word, file in files.items():
        print(f"{file}: its word is {word!r}")
    if unread := [word for word in files if word not in named]:
        file = files[unread[0]]
        raise ValueError(
            f"{file}: no prompt, --negative, --also or --without names its word {unread[0]!r}; --embedding WORD={file} "
            f"gives it another"
        )
    if unread := [word for word in learned if word not in named]:
        print(f"note: no prompt names {', '.join(map(repr, unread))}, which was learned", file=sys.stderr)

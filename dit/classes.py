"""The class table: new rows for other classes, and a class's row by its name."""

import difflib
from collections.abc import Sequence
from dataclasses import replace

import torch
from torch import nn

from dit.model import DiT

SHOWN = 20  # classes that an error lists


def resize_classes(model: DiT, sources: Sequence[Sequence[int]], generator: torch.Generator | None = None) -> None:
    """new_row_i = mean of the old rows in sources[i], or N(0, 0.02) where that is empty. The null row stays the last.

    sources: one list of old row ids for each new class. generator: of the random rows. Changes the class table and
    config.num_classes in place; an optimizer made before does not see the new table.
    Raises ValueError for no classes or for an id outside the old table.
    """
    table = model.y_embedder.embedding_table
    old = table.weight.detach()
    if not sources:
        raise ValueError("sources is empty: a class table needs at least one class")
    distinct = {id(ids): ids for ids in sources}  # thousands of classes may share one list
    wrong = [row for ids in distinct.values() for row in ids if not 0 <= row < len(old)]
    if wrong:
        raise ValueError(f"source classes must lie in 0..{len(old) - 1}, found {wrong}")

    def row(ids: Sequence[int]) -> torch.Tensor:
        if len(ids) == 0:
            device = generator.device if generator else "cpu"
            return (0.02 * torch.randn(old.shape[1], generator=generator, device=device)).to(old)
        return old[list(ids)].float().mean(dim=0).to(old)  # (D,)

    means = {key: row(ids) for key, ids in distinct.items() if len(ids)}
    rows = [means[id(ids)] if len(ids) else row(ids) for ids in sources]
    if model.config.class_dropout:
        rows.append(old[model.null])
    table.weight = nn.Parameter(torch.stack(rows), requires_grad=table.weight.requires_grad)
    table.num_embeddings = len(rows)
    model.config = replace(model.config, num_classes=len(sources))


def row_of(name: str, classes: Sequence[str]) -> int:
    """The row of a class or superclass, given its name, else its last part or one of its words, else the row's number.

    The words of "buckeye, horse chestnut, conker" are three. Raises ValueError, with the nearest words there are, if no
    class fits, and if several do.
    """
    readings = {
        "the name": lambda i, known: known == name,
        "the last part": lambda i, known: last_part(known) == name,
        "a word": lambda i, known: name in words_of(known),
        "the number": lambda i, known: str(i) == name,
    }
    for what, fits in readings.items():
        rows = [i for i, known in enumerate(classes) if fits(i, known)]
        if len(rows) == 1:
            return rows[0]
        if rows:
            several = "; ".join(f"{classes[i]} ({i})" for i in rows)
            raise ValueError(f"class {name!r} is one of several: it is {what} of {several}")
    if len(classes) <= SHOWN:
        raise ValueError(f"class {name!r} is unknown: the classes are {', '.join(classes)}")
    near = ", ".join(nearest_words(name, classes))
    raise ValueError(f"class {name!r} is none of the {len(classes)} classes; the nearest names are {near}")


def words_of(name: str) -> list[str]:
    """The words that a class goes by: "buckeye, horse chestnut, conker" -> three of them."""
    return [word.strip() for word in name.split(",")]


def nearest_words(name: str, classes: Sequence[str], count: int = 3) -> list[str]:
    """The words of the classes that are spelt most like `name`, the nearest first."""
    words = dict.fromkeys(word for known in classes for word in (last_part(known), *words_of(known)))
    return difflib.get_close_matches(name, words, n=count, cutoff=0)


def split_names(text: str, classes: Sequence[str]) -> list[str]:
    """The names in a text with commas between; a class whose own name has commas stays whole."""
    words, names = text.split(","), []
    while words:
        lengths = range(len(words), 0, -1)
        length = next((n for n in lengths if ",".join(words[:n]).strip() in classes), 1)
        names.append(",".join(words[:length]).strip())
        words = words[length:]
    return [name for name in names if name]


def last_part(name: str) -> str:
    """The part of a class's name after its superclass: "hazelnut/crack" -> "crack"."""
    return name.rsplit("/", 1)[-1]


def class_names(model: DiT) -> list[str]:
    """The names of the model's classes, their numbers where it has no names."""
    return model.classes or [str(i) for i in range(model.config.num_classes)]

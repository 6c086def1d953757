"""Contents that are almost right: bytes, texts, JSON values and tensors with a few things changed in each."""

import copy
import json
import random
import struct
from typing import Any

import torch
from torch import Tensor

NUMBERS = (0, 1, 2, 0x7F, 0x80, 0xFF, 0x7FFF, 0xFFFF, 0x7FFFFFFF, 0xFFFFFFFF, 2**63 - 1, 2**64 - 1)
ODD_TEXTS = ("", " ", "\0", "\ufeff", "../x", "/etc/passwd", "a" * 5000, "裂纹", "\ud7ff\u202e", "{}", "%s", "-1",
             "nan", "e\u0301", "\r\n", "[(", "\\", '"', "'''", "<|endoftext|>", "*", "NaN", "1e999",
             "true", "null")  # fmt: skip
ODD_VALUES = (None, True, False, 0, 1, -1, 2, 3, 7, 64, 10**6, 2**31, 2**63, 10**30, -(10**30), 0.5, -0.5, 1e-300,
              1e308, float("nan"), float("inf"), [], {}, [[]], [None], [0], [1, 2, 3], {"": None}, {"a": {"b": [1]}},
              *ODD_TEXTS)  # fmt: skip
DTYPES = (torch.float16, torch.bfloat16, torch.float64, torch.int64, torch.int8, torch.bool, torch.float8_e4m3fn)


def bytes_like(data: bytes, chance: random.Random) -> bytes:
    """The bytes with 1 to 4 places changed, cut, doubled or filled in."""
    for _ in range(chance.choice((1, 1, 1, 2, 4))):
        at = chance.randrange(len(data) + 1)
        if chance.random() < 0.5:
            at = min(at, chance.randrange(200))  # headers lie at the beginning
        length = chance.choice((1, 1, 2, 4, 8, 32, 500))
        number = struct.pack(chance.choice("<>") + "Q", chance.choice(NUMBERS))[: chance.choice((1, 2, 4, 8))]
        data = chance.choice((
            data[:at] + bytes([chance.randrange(256)]) + data[at + 1 :],
            data[:at] + bytes(b ^ 1 << chance.randrange(8) for b in data[at : at + 1]) + data[at + 1 :],
            data[:at] + number + data[at + len(number) :],
            data[:at] + chance.randbytes(length) + data[at + length :],
            data[:at] + data[at + length :],
            data[:at] + data[at : at + length] * chance.choice((2, 3, 20)) + data[at + length :],
            data[:at],
            data[:at] + chance.randbytes(length) + data[at:],
        ))  # fmt: skip
    return data


def text_like(text: str, chance: random.Random) -> str:
    """The text with 1 to 4 pieces changed, moved, doubled, or an odd one put in."""
    for _ in range(chance.choice((1, 1, 2, 4))):
        at, length = chance.randrange(len(text) + 1), chance.choice((0, 1, 1, 3, 10, 50))
        piece = chance.choice((*ODD_TEXTS, chr(chance.choice((chance.randrange(128), chance.randrange(0xD800))))))
        text = chance.choice((
            text[:at] + piece + text[at + length :],
            text[:at] + text[at : at + length] * chance.choice((2, 30)) + text[at + length :],
            text[:at] + text[at + length :],
            text[at:] + text[:at],
        ))  # fmt: skip
    return text


def json_like(value: Any, chance: random.Random) -> Any:
    """A copy of the JSON value with 1 to 3 of its parts replaced, removed, renamed or doubled."""
    value = copy.deepcopy(value)
    for _ in range(chance.choice((1, 1, 1, 2, 3))):
        places = [*places_in(value)]
        if not places:
            return odd(chance)
        holder, key = chance.choice(places)
        what = chance.random()
        if what < 0.6:
            holder[key] = odd(chance, holder[key])
        elif what < 0.75:
            del holder[key]
        elif isinstance(holder, dict):
            holder[str(odd(chance))[:6000] if what < 0.9 else f"{key}x"] = holder[key]
        else:
            holder.insert(key, copy.deepcopy(holder[key]))
    return value


def places_in(value: Any) -> list[tuple[Any, Any]]:
    """(container, key or index) of every part of a JSON value."""
    keys = [*value] if isinstance(value, dict) else [*range(len(value))] if isinstance(value, list) else []
    return [(value, key) for key in keys] + [place for key in keys for place in places_in(value[key])]


def odd(chance: random.Random, value: Any = None) -> Any:
    """A value that is not expected here, sometimes one near to what was."""
    if isinstance(value, int | float) and not isinstance(value, bool) and chance.random() < 0.4:
        return chance.choice(
            (value + 1, value - 1, -value, value * 2, float(value), str(value), [value], value * 10**9)
        )
    if isinstance(value, str) and chance.random() < 0.4:
        return text_like(value, chance)
    return copy.deepcopy(chance.choice(ODD_VALUES))


def json_text(value: Any, chance: random.Random) -> str:
    """JSON, with the words that Python adds to it, and once in a while nested deeper than any reader goes."""
    text = json.dumps(value)
    return text if chance.random() < 0.98 else text.replace(": ", ": " + "[" * 50_000, 1)


def toml_text(table: dict, chance: random.Random) -> str:
    """TOML of a table of JSON values; what is below the first level is mostly none."""
    words = {None: '""', True: "true", False: "false"}
    lines = []
    for key, value in table.items():
        word = words[value] if isinstance(value, bool | None) else json_text(value, chance).replace("NaN", "nan")
        lines.append(f"{json.dumps(str(key))} = {word.replace('Infinity', 'inf')}")
    return "\n".join(lines)


def tensors_like(tensors: dict[str, Tensor], chance: random.Random) -> dict[str, Tensor]:
    """The tensors with 1 to 3 of them missing, renamed, of another shape, type or content."""
    tensors = dict(tensors)
    for _ in range(chance.choice((1, 1, 2, 3))):
        name = chance.choice([*tensors] or ["x"])
        tensor = tensors.pop(name, torch.zeros(2))
        what = chance.randrange(9)
        if what == 0:
            continue
        if what == 1:
            name = chance.choice((text_like(name, chance), f"module.{name}", name.replace(".0.", ".1.")))
        elif what == 2:
            tensor = tensor.flatten()[: chance.randrange(4)]
        elif what == 3:
            tensor = tensor[None] if chance.random() < 0.5 else tensor.flatten()
        elif what == 4:
            tensor = tensor.to(chance.choice(DTYPES))
        elif what == 5:
            tensor = torch.full_like(tensor, float("nan")) if tensor.is_floating_point() else tensor
        elif what == 6:
            tensor = torch.zeros([chance.choice((0, 1, 2, 3, 64)) for _ in range(chance.randrange(5))][:3])
        elif what == 7:
            tensor = torch.cat([tensor, tensor]) if tensor.dim() else tensor
        else:
            tensors[name + ".extra"] = tensor.clone()
        tensors[name] = tensor
    return tensors

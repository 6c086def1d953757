r"""A share of a source, held out by its files: SOURCE#train:SHARE and SOURCE#val:SHARE are its two parts.

    photos/#val:0.2                 a fifth of each class, one image at least
    photos/#val:4                   4 images of each class
    photos/#val:0.2:(tile\d+)_      objects, not images: those whose class/name match alike stay together

Images go by the hash of their files, so the parts do not depend on names, order or other images, and two copies of one
file are never in both. Objects go by the hash of what the pattern matches.
"""

import re
from hashlib import sha256
from pathlib import Path
from typing import NamedTuple

from torch import Tensor, tensor

SOURCE = re.compile(r"(?P<source>.*)#(?P<part>train|val):(?P<share>[^#]*)", re.DOTALL)
SHARE = re.compile(r"(?P<amount>0?\.\d+|[1-9]\d*)(:(?P<pattern>.+))?")


class Part(NamedTuple):
    """One of the two parts: `amount` below 1 is a share of each class, else images of each class."""

    name: str  # "train" or "val"
    amount: float
    pattern: re.Pattern | None

    def of(self, names: list[str], labels: list[int]) -> Tensor:
        """The numbers of the part's images. names: their files, or what stands for one. ValueError for lone objects."""
        keys, held = [self.key(name) for name in names], set()
        for label in dict.fromkeys(labels):
            own = [key for key, other in zip(keys, labels) if other == label]
            objects, wanted = sorted(set(own)), self.amount if self.amount >= 1 else max(1, self.amount * len(own))
            taken = 0
            while taken < wanted - 0.5 and len(objects) > 1:
                taken += own.count(objects[0])
                held.add((label, objects.pop(0)))
            if not taken:
                first = names[labels.index(label)]
                raise ValueError(f"nothing can be held out of a class of one image or object ({first}): give --val DIR")
        inside = [((label, key) in held) == (self.name == "val") for label, key in zip(labels, keys)]
        return tensor([i for i, chosen in enumerate(inside) if chosen])

    def key(self, name: str) -> str:
        """What orders an image: the hash of its object, or of its file."""
        if self.pattern is None:
            file = Path(name)
            return sha256(file.read_bytes() if file.is_file() else name.encode()).hexdigest()
        match = self.pattern.search("/".join(Path(name).parts[-2:]))
        if not match:
            raise ValueError(f"{name}: the pattern {self.pattern.pattern!r} of --val matches nothing in it")
        return sha256(str(match.groups() or match[0]).encode()).hexdigest()


def share(val: str) -> re.Match | None:
    """The match of a share such as "0.2", "4" or "0.2:PATTERN"; None for anything else, such as a folder."""
    return SHARE.fullmatch(val)


def parse(source: str) -> tuple[str, Part | None]:
    """SOURCE#PART:SHARE -> the source and its part; any other source and None. ValueError for a share that is none."""
    match = SOURCE.fullmatch(source)
    if not match:
        return source, None
    found = share(match["share"])
    if not found:
        raise ValueError(f"{source!r}: a share is 0.2, 4 or 0.2:PATTERN, found {match['share']!r}")
    try:
        pattern = re.compile(found["pattern"]) if found["pattern"] else None
    except re.error as error:
        raise ValueError(f"{source!r}: {found['pattern']!r} is no pattern ({error})") from None
    return match["source"], Part(match["part"], float(found["amount"]), pattern)


def parts(source: str, val: str) -> tuple[str, str]:
    """The training and the held-out source, where `val` is a share; else the two as they are."""
    return (f"{source}#train:{val}", f"{source}#val:{val}") if share(val) else (source, val)

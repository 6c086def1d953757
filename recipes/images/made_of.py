"""What a run is made of, as digests: its images, its classes and its base. Its state keeps them, so that a resumed run
is told where one of them is another by now (training/state.py).

    {"data": {"number of images": 20, "files": ..., "pixels": ..., "masks": ..., "labels": ..., "captions": ...},
     "classes": {"names": [...], "superclasses": ...},
     "base": {"model": ..., "autoencoder": ..., "init files": ..., "tokens": ...}}
"""

import hashlib
import os
from collections.abc import Iterable
from pathlib import Path

import numpy as np

import weights
from data import ImageSet
from data.lazy import Lazy
from unet import VAE


def made_of(
    images: ImageSet,
    source: str,
    base: dict,
    vae: VAE | None = None,
    init: Iterable[str] = (),
    captions: list[str] | None = None,
    tokens: bytes = b"",
) -> dict:
    """images: those of `source` as they are trained on. base: the fingerprint of the model, {} for a new one.

    captions: of the images, None where they are conditioned by their classes. tokens: what they become.
    """
    inside = os.path.isdir(source)
    names = (os.path.relpath(name, source) if inside else name for name in images.names)
    data = {
        "number of images": len(images.names),
        "files": digest_of(names),
        "pixels": digest_of_rows(images.pixels),
        "masks": digest(b"") if images.masks is None else digest_of_rows(images.masks),
        "labels": digest(buffer(images.labels.numpy())),
    }
    model = {
        "model": digest(base.get("structure", ""), base.get("content", "")),
        "autoencoder": digest(weights.fingerprint(vae)["content"] if vae else ""),
        "init files": digest(*(file.read_bytes() for name in init for file in files_of(Path(name)))),
        "tokens": digest(tokens),
    }
    if captions is not None:
        return {"data": data | {"captions": digest(*captions)}, "base": model}
    classes = {"names": images.classes, "superclasses": digest(*sorted(map("/".join, images.parents.items())))}
    return {"classes": classes, "data": data, "base": model}


def files_of(path: Path) -> list[Path]:
    """The file itself, or all files of a folder in order."""
    return sorted(file for file in path.rglob("*") if file.is_file()) if path.is_dir() else [path]


def digest_of_rows(rows: np.ndarray | Lazy) -> str:
    """The digest of the bytes of all rows."""
    return rows.digest[:16] if isinstance(rows, Lazy) else digest(buffer(rows))


def buffer(values: np.ndarray) -> memoryview:
    """The bytes of an array, not copied."""
    return memoryview(np.ascontiguousarray(values)).cast("B")


def digest(*parts: str | bytes | memoryview) -> str:
    """The first 16 hexadecimal digits of SHA-256 of the parts and their lengths."""
    return digest_of(parts)


def digest_of(parts: Iterable[str | bytes | memoryview]) -> str:
    """`digest` of parts that come one after the other."""
    total = hashlib.sha256()
    for part in parts:
        part = part.encode("utf-8", "surrogateescape") if isinstance(part, str) else part
        total.update(f"{len(part)} ".encode())
        total.update(part)
    return total.hexdigest()[:16]

"""A name or a file -> the network that the metrics measure in: images (N, 3, S, S) in [-1, 1] -> features (N, D).

    tiny-features    the classifier that ships (metrics/networks/features.py), D 64, images at 64 px
    pixels           the images themselves, pooled: grey at 16 x 16 and colour at 4 x 4, D 304
    a file           of FID's Inception (D 2048), CLIP, DINO or DINOv2, or the name of a downloaded one ("dino-vits16");
                     what it is is told by the names of its tensors

How each network resizes and scales its images stands in its own file. Features are as they are published: those that
are compared by direction are not normalised here.
"""

from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from metrics.networks import clip, dino, features, inception, lpips
from unet.tokenizer import Tokenizer
from weights import published
from weights.configs import KINDS
from weights.detect import graft_header, other, parts
from weights.files import read
from weights.load import resolve

KNOWN = "FID's Inception, CLIP, DINO, DINOv2 or a feature network of this package"
BATCH = 32


class Network(NamedTuple):
    """What the metrics measure in. Everything comes back on the CPU, without a gradient."""

    name: str  # what the tables print
    embed: Callable[[Tensor], Tensor]  # images (N, 3, S, S) in [-1, 1] -> features (N, D)
    logits: Callable[[Tensor], Tensor] | None = None  # images -> (N, classes)
    classes: tuple[str, ...] = ()  # names of the logits, where the file tells them
    texts: Callable[[list[str]], Tensor] | None = None  # CLIP: N texts -> features (N, D) in the space of the images
    scale: float | None = None  # CLIP: what the cosines of images and texts are multiplied with to be logits


def load_network(spec, device="cpu") -> Network:
    """The network of a name or a file, on a device. ValueError in one sentence for a file that is something else."""
    if str(spec) == "pixels":
        return Network("pixels, pooled", batched(pixels, device))
    path = resolve(spec)
    tensors, metadata = read(path)
    if graft_header(metadata, path).get("kind") == "features":
        return classifier(path, device)
    if inception.SIGN in tensors:
        network = inception.build(tensors, path).to(device)
        return Network(f"FID's Inception ({path.name})", batched(network.features, device), batched(network, device))
    if clip.SIGNS.keys() & tensors.keys():
        return both_towers(clip.build(tensors, metadata, path).to(device), path, device)
    inside = dino.normalised(tensors)
    if dino.layout_of(inside):
        network = dino.build(inside, metadata, path).to(device)
        name = f"{dino.name_of(network)} ({path.name})"
        return Network(name, batched(lambda x: dino.features(network, x), device))
    raise ValueError(f"{path}: expected {KNOWN}, found {stranger(tensors)}")


def stranger(tensors: dict[str, Tensor]) -> str:
    """What a file holds that is none of these networks."""
    if "visual.layer1.0.conv1.weight" in tensors:
        return "CLIP with a ResNet as its image tower"
    if lpips.SIGN in tensors:
        return (
            "the linear weights of LPIPS, which compare pairs of images: metrics.networks.lpips.load_lpips reads them"
        )
    return " and ".join(KINDS[kind].words for kind in parts(tensors)) or other(tensors)


def batched(function: Callable[[Tensor], Tensor], device) -> Callable[[Tensor], Tensor]:
    """The function of images, applied to a few at a time, on the device. ValueError for what is no such images."""

    @torch.no_grad()
    def run(images: Tensor) -> Tensor:
        shape = tuple(images.shape)
        if len(shape) != 4 or shape[1] != 3 or shape[2] != shape[3] or 0 in shape:
            raise ValueError(f"expected images (N, 3, S, S), found {shape}")
        low, high = images.aminmax()
        if not (low >= -1.001 and high <= 1.001):
            raise ValueError(f"expected images in [-1, 1], found values from {low:.3g} to {high:.3g}")
        return torch.cat([function(part.to(device, torch.float32)).cpu() for part in images.split(BATCH)])

    return run


def pixels(x: Tensor) -> Tensor:
    """x (N, 3, S, S) -> (N, 304): means of grey over a grid of 16 x 16, then means of each colour over one of 4 x 4."""
    grey, colour = F.adaptive_avg_pool2d(x.mean(1), 16), F.adaptive_avg_pool2d(x, 4)  # (N, 16, 16), (N, 3, 4, 4)
    return torch.cat([grey.flatten(1), colour.flatten(1)], 1)


def classifier(path: Path, device) -> Network:
    """A feature network of this package."""
    network, classes = features.load_classifier(path / "model.safetensors" if path.is_dir() else path)
    network.to(device)

    def embed(x: Tensor) -> Tensor:
        return features.embed(network, x)[0]

    def logits(x: Tensor) -> Tensor:
        return features.embed(network, x)[1]

    name = path.stem if path.is_file() else path.name
    return Network(name, batched(embed, device), batched(logits, device), tuple(classes))


def both_towers(network: clip.CLIP, path: Path, device) -> Network:
    """CLIP, its tokenizer read when the first text comes."""

    @cache
    def tokenizer() -> Tokenizer:
        return find_tokenizer(path, network.text.config.vocab_size)

    @torch.no_grad()
    def texts(words: list[str]) -> Tensor:
        tokens = tokenizer().tokens(words).to(device)  # (N, 77)
        return torch.cat([network.texts(part).cpu() for part in tokens.split(BATCH)])

    image = network.image.config
    name = f"CLIP {image.name} at {image.grid * image.patch} px, {image.activation} ({path.name})"
    return Network(name, batched(network.images, device), texts=texts, scale=network.logit_scale.exp().item())


def find_tokenizer(path: Path, rows: int) -> Tokenizer:
    """The tokenizer in the folder of a CLIP, or the downloaded one; ValueError without one that fits the tower."""
    folder, downloaded = path if path.is_dir() else path.parent, published.target("clip-tokenizer")
    if any((folder / name).exists() for name in ("vocab.json", "tokenizer.json")):
        found = Tokenizer.from_folder(folder)
    elif downloaded.exists():
        found = Tokenizer.from_openai(downloaded)
    else:
        raise ValueError(
            f"{path}: texts need a tokenizer, vocab.json and merges.txt in {folder} or {downloaded}: run "
            "`python -m weights.download clip-tokenizer`"
        )
    if len(found) != rows:
        raise ValueError(f"{path}: a tokenizer of {len(found)} tokens, the text tower has {rows}")
    return found

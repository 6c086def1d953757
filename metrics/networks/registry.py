"""A name or a file -> the network of the metrics: images (N, 3, S, S) in [-1, 1] -> features (N, D).

    tiny-features    the classifier that ships (metrics/networks/features.py), D 64, images at 64 px
    pixels           the images themselves, pooled: grey at 16 x 16 and colour at 4 x 4, D 304
    a file           of FID's Inception (D 2048), CLIP, DINO or DINOv2, or the name of a downloaded one ("dino-vits16");
                     the names of its tensors show which network it is

The file of each network says how it resizes and scales images. Features are as published: those that are compared by
direction have their own lengths here.
"""

from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from metrics.networks import clip, dino, features, inception, lpips
from unet.text.tokenizer import Tokenizer
from weights.formats import published
from weights.formats.files import read
from weights.formats.published import resolve
from weights.formats.safe import graft_header
from weights.layouts.detect import layouts_in
from weights.layouts.families import describe_file
from weights.layouts.kinds import KINDS

KNOWN = "FID's Inception, CLIP, DINO, DINOv2 or a feature network of this package"
BATCH = 32


class Network(NamedTuple):
    """A network of the metrics. All results are on the CPU, without a gradient."""

    name: str  # in the tables
    embed: Callable[[Tensor], Tensor]  # images (N, 3, S, S) in [-1, 1] -> features (N, D)
    logits: Callable[[Tensor], Tensor] | None = None  # images -> (N, classes)
    classes: tuple[str, ...] = ()  # names of the logits, if the file has them
    texts: Callable[[list[str]], Tensor] | None = None  # CLIP: N texts -> features (N, D) in the space of the images
    scale: float | None = None  # CLIP: logits are this times the cosines of images and texts
    score: str = ""  # the name of the mean cosine to a subject's photographs in it: clip_i, dino, dinov2


def load_network(spec: str | Path, device: str | torch.device = "cpu") -> Network:
    """The network of a name or a file, on a device. ValueError in one sentence for a file of anything else."""
    if str(spec) == "pixels":
        return Network("pixels, pooled", batched(pixels, device))
    path = resolve(spec)
    tensors, metadata = read(path)
    if graft_header(metadata, path).get("kind") == "features":
        return classifier_network(path, device)
    if inception.SIGN in tensors:
        network = inception.build(tensors, path).to(device)
        return Network(f"FID's Inception ({path.name})", batched(network.features, device), batched(network, device))
    if clip.SIGNS.keys() & tensors.keys():
        return clip_network(clip.build(tensors, metadata, path).to(device), path, device)
    backbone = dino.normalised(tensors)
    if dino.layout_of(backbone):
        network = dino.build(backbone, metadata, path).to(device)
        name = f"{dino.name_of(network)} ({path.name})"
        return Network(
            name,
            batched(lambda x: dino.features(network, x), device),
            score="dinov2" if name.startswith("DINOv2") else "dino",
        )
    raise ValueError(f"{path}: expected {KNOWN}, found {describe_unknown(tensors)}")


def describe_unknown(tensors: dict[str, Tensor]) -> str:
    """What a file that is none of these networks holds, for an error message."""
    if "visual.layer1.0.conv1.weight" in tensors:
        return "CLIP with a ResNet as its image tower"
    if lpips.SIGN in tensors:
        return (
            "the linear weights of LPIPS, which compare pairs of images: metrics.networks.lpips.load_lpips reads them"
        )
    return " and ".join(KINDS[kind].words for kind in layouts_in(tensors)) or describe_file(tensors)


def batched(function: Callable[[Tensor], Tensor], device: str | torch.device) -> Callable[[Tensor], Tensor]:
    """The same function of images (N, 3, S, S), run on the device on BATCH images at a time.

    It raises ValueError for images of another shape or beyond [-1, 1].
    """

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
    """x (N, 3, S, S) -> (N, 304): means of grey over 16 x 16 cells, then means of each colour over 4 x 4 cells."""
    grey, colour = F.adaptive_avg_pool2d(x.mean(1), 16), F.adaptive_avg_pool2d(x, 4)  # (N, 16, 16), (N, 3, 4, 4)
    return torch.cat([grey.flatten(1), colour.flatten(1)], 1)


def classifier_network(path: Path, device: str | torch.device) -> Network:
    """The network of a classifier of this package, metrics/networks/features.py."""
    network, classes = features.load_classifier(path / "model.safetensors" if path.is_dir() else path)
    network.to(device)
    embed = batched(lambda x: features.embed(network, x)[0], device)
    logits = batched(lambda x: features.embed(network, x)[1], device)
    name = path.stem if path.is_file() else path.name
    return Network(name, embed, logits, tuple(classes))


def clip_network(network: clip.CLIP, path: Path, device: str | torch.device) -> Network:
    """The network of a CLIP. Its tokenizer is read when the first text comes."""

    @cache
    def tokenizer() -> Tokenizer:
        return find_tokenizer(path, network.text.config.vocab_size)

    @torch.no_grad()
    def texts(words: list[str]) -> Tensor:
        tokens = tokenizer().tokens(words).to(device)  # (N, 77)
        return torch.cat([network.texts(part).cpu() for part in tokens.split(BATCH)])

    image = network.image.config
    name = f"CLIP {image.name} at {image.grid * image.patch} px, {image.activation} ({path.name})"
    scale, images = network.logit_scale.exp().item(), batched(network.images, device)
    return Network(name, images, texts=texts, scale=scale, score="clip_i")


def find_tokenizer(path: Path, rows: int) -> Tokenizer:
    """The tokenizer in the folder of a CLIP, or the downloaded one. ValueError if none has `rows` tokens."""
    folder, downloaded = path if path.is_dir() else path.parent, published.target("clip-tokenizer")
    if any((folder / name).exists() for name in ("vocab.json", "tokenizer.json")):
        tokenizer = Tokenizer.from_folder(folder)
    elif downloaded.exists():
        tokenizer = Tokenizer.from_openai(downloaded)
    else:
        raise ValueError(
            f"{path}: texts need a tokenizer, vocab.json and merges.txt in {folder} or {downloaded}: run "
            "`python -m weights.download clip-tokenizer`"
        )
    if len(tokenizer) != rows:
        raise ValueError(f"{path}: a tokenizer of {len(tokenizer)} tokens, the text tower has {rows}")
    return tokenizer

"""Measure images, of whatever made them: python evaluate.py --real DIR --fake DIR [--flag value]...

DIR is a folder of images in any layout that training reads, a folder that sample.py wrote, or generated images such as
generated:hazelnut/test/20. Prints a table for each network, and with --out writes it as JSON.
"""

import json
import sys
from dataclasses import dataclass, field

import torch

import launch
from data import ImageSet, load
from data.output.atomic import write_atomic
from data.output.samples import file_names, read_samples, smallest_side
from data.source import GENERATED
from data.transforms import Transform, to_tensor
from metrics import networks
from metrics.networks import lpips
from metrics.statistics.clusters import intra_cluster, pairwise_diversity
from metrics.statistics.prompts import PAIRS, alternatives, choose, clip_iqa, clip_t, prompt_accuracy
from metrics.statistics.scores import load_scorer, means
from metrics.table import as_text, measure
from ops.device import choose_device

SIDE = 64  # of generated images


@dataclass
class Config:
    real: str = ""  # images that were not trained on; the more, the surer
    fake: str = ""  # the samples
    train: str = ""  # the images that were trained on: are the samples copies of them
    features: list[str] = field(default_factory=lambda: ["tiny-features"])  # network or file of one; repeat
    lpips: str = ""  # linear weights of LPIPS, file or downloaded name: how far apart are the samples
    prompt: list[str] = field(default_factory=list)  # that sample.py drew, repeat; a {red|blue} box: with alternatives
    scorer: list[str] = field(default_factory=list)  # function of the samples, module:NAME or file.py:NAME; repeat
    size: int = 0  # side in pixels that all images are brought to; 0: that of the smallest sample
    device: str = "auto"  # auto | cpu | cuda | mps
    out: str = ""  # .json file of the numbers


def main(argv=None):
    cfg = launch.configure(Config, argv)
    for name in ("real", "fake"):
        if not getattr(cfg, name):
            raise ValueError(f"--{name} must name a folder of images, found none")
    device, scorers = choose_device(cfg.device), [load_scorer(text) for text in cfg.scorer]
    asked = [alternatives(prompt) if "{" in prompt else [prompt] for prompt in cfg.prompt]
    drawn, real, train = images_of(cfg, [choices[0] for choices in asked])
    fake, real, train = sharing(drawn, real, train)
    tables, judge = [], networks.load_network("tiny-features", device)
    for spec in cfg.features:
        network = networks.load_network(spec, device)
        tables.append(
            measure(network, fake, real, train, judge) | (spoken(network, drawn, asked) if network.texts else {})
        )
    if cfg.lpips:
        tables.append({"network": f"LPIPS ({cfg.lpips})"} | apart(lpips.load_lpips(cfg.lpips).to(device), fake, train))
    for text, scorer in zip(cfg.scorer, scorers):
        tables.append({"scorer": text, "samples": len(fake.pixels)} | means(scorer(fake.pixels)))
    print("\n\n".join(map(as_text, tables)))
    if cfg.out:
        write_atomic(cfg.out, json.dumps(tables, indent=2).encode() + b"\n")


def spoken(network: networks.Network, drawn: ImageSet, asked: list[list[str]]) -> dict:
    """What a network of images and texts says: is it a good photo, does it show its prompt rather than another.

    asked: for each class of `drawn` its prompt, and after it the alternatives if there are any.
    """
    f, good = network.embed(to_tensor(drawn.pixels)), network.texts(list(PAIRS["quality"]))
    numbers = {"clip_iqa": clip_iqa(f, good, network.scale).mean().item()}
    if asked:
        texts = network.texts([choices[0] for choices in asked])  # (P, D)
        numbers["clip_t"] = clip_t(f, texts[drawn.labels]).mean().item()
    choices = [
        choose(f[drawn.labels == i], network.texts(texts), network.scale)
        for i, texts in enumerate(asked)
        if len(texts) > 1
    ]
    return numbers | ({f"prompt_{name}": value for name, value in prompt_accuracy(choices).items()} if choices else {})


def apart(network: lpips.LPIPS, fake: ImageSet, train: ImageSet | None) -> dict:
    """Mean LPIPS between samples, and between those nearest to one training image (Ojha et al. 2021)."""
    device = next(network.parameters()).device
    x = to_tensor(fake.pixels).to(device)
    between = lpips.pairwise(network, x)  # (N, N)
    numbers = {"samples": len(x), "pairwise_lpips": pairwise_diversity(between)}
    if train is None:
        return numbers
    to_train = lpips.pairwise(network, x, to_tensor(train.pixels).to(device))  # (N, T)
    return numbers | {"train": len(train.pixels)} | intra_cluster(to_train, between)


def images_of(cfg, prompts: list[str]) -> tuple[ImageSet, ImageSet, ImageSet | None]:
    """Samples, real and training images, all at one size; the classes of the samples are the prompts, if there are."""
    side = cfg.size or (SIDE if cfg.fake.startswith(GENERATED) else smallest_side(cfg.fake))
    real, train = (read(source, Transform(side)) if source else None for source in (cfg.real, cfg.train))
    if prompts:
        return read_samples(cfg.fake, Transform(side), prompts), real, train
    return read(cfg.fake, Transform(side), real.classes), real, train


def read(source: str, transform: Transform, classes: list[str] = ()) -> ImageSet:
    """The images; those of sample.py have the classes that it wrote into their names, if they are among `classes`."""
    if source.startswith(GENERATED):
        return load(source, transform)
    found = read_samples(source, transform)
    known = dict(zip(file_names(classes), classes))
    return found._replace(classes=[known.get(name, name) for name in found.classes])


def sharing(fake: ImageSet, real: ImageSet, train: ImageSet | None) -> list[ImageSet | None]:
    """The same images with the classes that they share; where they differ, all of one class."""
    sets = [fake, real, train]
    if any(images is not None and set(images.classes) != set(real.classes) for images in sets):
        print(
            f"classes: {', '.join(real.classes)} of the real images, {', '.join(fake.classes)} of the samples; they "
            f"differ, so that nothing is told by class"
        )
        return [images and images._replace(labels=torch.zeros_like(images.labels), classes=["all"]) for images in sets]
    return [images and recast(images, real.classes) for images in sets]


def recast(images: ImageSet, classes: list[str]) -> ImageSet:
    """The images with the same classes in this order."""
    return images._replace(
        labels=torch.tensor([classes.index(name) for name in images.classes])[images.labels], classes=classes
    )


if __name__ == "__main__":
    try:
        main()
    except (ValueError, OSError) as error:
        sys.exit(f"error: {error}")

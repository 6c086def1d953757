"""Measure images, of whatever made them: python evaluate.py --real DIR --fake DIR [--flag value]...

DIR is a folder of images in any layout that training reads, a folder that sample.py wrote, or generated images such as
generated:hazelnut/test/20. Prints a table for each network, and with --out writes it as JSON.
"""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from border import to_json
from config import option, read, run_script
from data import ImageSet, load
from data.output.atomic import write_atomic
from data.output.samples import file_names, read_samples, smallest_side
from data.source import GENERATED, describe_shared, tell
from data.split import parse as parse_part
from data.transforms import Transform, to_tensor
from metrics import networks
from metrics.alignment.prompts import PAIRS, alternatives, choose, clip_iqa, clip_t, prompt_accuracy
from metrics.alignment.scores import load_scorer, means
from metrics.alignment.subject import drift
from metrics.downstream.folders import gain_table
from metrics.networks import lpips
from metrics.statistics.clusters import intra_cluster, pairwise_diversity
from metrics.table import measure_in, without_nan
from metrics.text import as_text
from metrics.textures.table import PATCHES, features_of
from metrics.verdict import verdict
from ops.device import choose_device

SIDE = 64  # of generated images


@dataclass
class Images:
    """The images"""

    real: str = option("", "images that were not trained on; the more, the surer")
    fake: str = option("", "the samples")
    train: str = option("", "the images that were trained on: are the samples copies of them")
    size: int = option(0, "side in pixels that all images are brought to; 0: that of the smallest sample", at_least=0)

    def check(self) -> None:
        for name in ("real", "fake"):
            if not getattr(self, name):
                raise ValueError(f"--{name} must name a folder of images, found none")


@dataclass
class Kept:
    """What was not trained"""

    before: str = option("", "pictures of unrelated prompts or classes by the model before training: did they change")
    after: str = option("", "the same pictures, of the same seed, by the trained model")

    def check(self) -> None:
        if bool(self.before) != bool(self.after):
            raise ValueError("--before and --after are two folders of the same pictures, give both")


@dataclass
class Measures:
    """The measures"""

    features: list[str] = option(
        [], "network, or file of one, to measure in; repeat; patches: none, as for photographs of one's own by default"
    )
    lpips: str = option("", "linear weights of LPIPS, file or downloaded name: how far apart are the samples")
    prompt: list[str] = option([], "that the samples were made of, repeat; a {red|blue} box: with alternatives")
    gain: int = option(0, "trainings of a classifier with and without the samples: do they teach it", at_least=0)
    scorer: list[str] = option([], "function of the samples, module:NAME or file.py:NAME; repeat")


@dataclass
class Output:
    """The output"""

    device: str = option("auto", "auto, or a device of torch: cpu, cuda, cuda:1, mps")
    out: str = option("", ".json file of the numbers")

    def check(self) -> None:
        choose_device(self.device)


def main(argv: list[str] | None = None) -> None:
    """Images, networks, one table for each."""
    config = read(argv, Images, Kept, Measures, Output, title=__doc__)
    measures, device = config[Measures], choose_device(config[Output].device)
    scorers = [load_scorer(text) for text in measures.scorer]
    choices = [alternatives(prompt) if "{" in prompt else [prompt] for prompt in measures.prompt]
    features = measures.features or [features_of("", config[Images].real)]
    loaded = {spec: None if spec == PATCHES else networks.load_network(spec, device) for spec in features}
    if any(len(texts) > 1 for texts in choices) and not any(network and network.texts for network in loaded.values()):
        raise ValueError(
            f"alternatives in a prompt need a network that reads texts, such as CLIP, and --features "
            f"{', '.join(features)} reads none"
        )
    samples, real, train = images_of(config[Images], [texts[0] for texts in choices])
    tell([], describe_shared(train, real) if train else "")
    fake, real, train = with_shared_classes(samples, real, train)
    tables, classifier = [], networks.load_network("tiny-features", device)
    for network in loaded.values():
        of_prompts = measure_prompts(network, samples, choices) if network and network.texts else {}
        tables.append(measure_in(network, fake, real, train, classifier) | of_prompts)
    said, kept = verdict(tables), config[Kept]
    if kept.before:
        pictures = paired(kept.before, kept.after, fake.pixels.shape[1])
        for network in list(filter(None, loaded.values())) or [networks.load_network("pixels", device)]:
            tables.append({"network": network.name} | drift(*map(network.embed, pictures)))
    if measures.gain:
        if train is None:
            raise ValueError("--gain compares classifiers of the training images: give --train")
        tables.append(gain_table(real, fake, train, measures.gain))
    if measures.lpips:
        distances = lpips_distances(lpips.load_lpips(measures.lpips).to(device), fake, train)
        tables.append(without_nan({"network": f"LPIPS ({measures.lpips})"} | distances))
    for text, scorer in zip(measures.scorer, scorers):
        tables.append(without_nan({"scorer": text, "samples": len(fake.pixels)} | means(scorer(fake.pixels))))
    if config[Output].out:  # before they are printed, which may fail
        write_atomic(config[Output].out, to_json(tables, indent=2).encode() + b"\n")
    print("\n\n".join([*map(as_text, tables), said]))


def measure_prompts(network: networks.Network, samples: ImageSet, choices: list[list[str]]) -> dict:
    """What a network of images and texts says: is it a good photo, does it show its prompt rather than another.

    choices: for each class of `samples` its prompt, and after it the alternatives if there are any.
    """
    f, good = network.embed(to_tensor(samples.pixels)), network.texts(list(PAIRS["quality"]))
    numbers = {"clip_iqa": clip_iqa(f, good, network.scale).mean().item()}
    if not choices:
        return numbers
    texts = network.texts([alternatives[0] for alternatives in choices])  # (P, D)
    numbers["clip_t"] = clip_t(f, texts[samples.labels]).mean().item()
    chosen = [
        choose(f[samples.labels == i], network.texts(texts), network.scale)
        for i, texts in enumerate(choices)
        if len(texts) > 1
    ]
    accuracy = prompt_accuracy(chosen) if chosen else {}
    return numbers | {f"prompt_{name}": value for name, value in accuracy.items()}


def lpips_distances(network: lpips.LPIPS, fake: ImageSet, train: ImageSet | None) -> dict:
    """Mean LPIPS between samples, and between those nearest to one training image (Ojha et al. 2021)."""
    device = next(network.parameters()).device
    x = to_tensor(fake.pixels).to(device)
    between = lpips.pairwise(network, x)  # (N, N)
    numbers = {"samples": len(x), "pairwise_lpips": pairwise_diversity(between)}
    if train is None:
        return numbers
    to_train = lpips.pairwise(network, x, to_tensor(train.pixels).to(device))  # (N, T)
    numbers |= {"train": len(train.pixels)} | intra_cluster(to_train, between)
    if fake.masks is None or train.masks is None or not fake.masks.any() or not train.masks.any():
        return numbers
    x, real = (hidden(images).to(device) for images in (fake, train))  # the masked part alone
    own = intra_cluster(lpips.pairwise(network, x, real), lpips.pairwise(network, x))
    return numbers | {f"masked_{name}": value for name, value in own.items()}


def hidden(images: ImageSet) -> torch.Tensor:
    """The images with a mask, (N, 3, S, S), grey outside of it: so IC-LPIPS sees their defects and no background."""
    some = torch.from_numpy(images.masks.any((1, 2)))
    return to_tensor(images.pixels)[some] * torch.from_numpy(images.masks)[some][:, None]


def images_of(images: Images, prompts: list[str]) -> tuple[ImageSet, ImageSet, ImageSet | None]:
    """Samples, real and training images, all at one size; the classes of the samples are the prompts, if there are."""
    side = images.size or (SIDE if images.fake.startswith(GENERATED) else smallest_side(images.fake))
    real, train = (read_images(source, side) if source else None for source in (images.real, images.train))
    if prompts:
        return read_samples(images.fake, Transform(side), prompts), real, train
    return read_images(images.fake, side, real.classes), real, train


def paired(before: str, after: str, side: int) -> list[Tensor]:
    """The pictures of two folders that have the same names, (N, 3, side, side) each. ValueError unless all have."""
    sets = [read_samples(folder, Transform(side)) for folder in (before, after)]
    names = [[Path(name).name for name in images.names] for images in sets]
    if odd := sorted(set(names[0]) ^ set(names[1])):
        raise ValueError(f"{before} and {after} hold other pictures, {odd[0]} is in one of them only")
    return [to_tensor(images.pixels)[np.argsort(of)] for images, of in zip(sets, names)]


def read_images(source: str, side: int, classes: list[str] = ()) -> ImageSet:
    """The images; those of sample.py have the classes that it wrote into their names, if they are among `classes`."""
    if source.startswith(GENERATED) or parse_part(source)[1]:
        return load(source, Transform(side))
    images = read_samples(source, Transform(side))
    known = dict(zip(file_names(classes), classes))
    return images._replace(classes=[known.get(name, name) for name in images.classes])


def with_shared_classes(fake: ImageSet, real: ImageSet, train: ImageSet | None) -> list[ImageSet | None]:
    """The same images with the classes that they share; where they differ, all of one class."""
    sets = [fake, real, train]
    if any(images is not None and set(images.classes) != set(real.classes) for images in sets):
        print(
            f"classes: {', '.join(real.classes)} of the real images, {', '.join(fake.classes)} of the samples; they "
            f"differ, so that no number is by class"
        )
        return [images and images._replace(labels=torch.zeros_like(images.labels), classes=["all"]) for images in sets]
    return [images and reordered(images, real.classes) for images in sets]


def reordered(images: ImageSet, classes: list[str]) -> ImageSet:
    """The images with the same classes in this order."""
    number = torch.tensor([classes.index(name) for name in images.classes])
    return images._replace(labels=number[images.labels], classes=classes)


if __name__ == "__main__":
    run_script(main)

"""Measure images, of whatever made them: python evaluate.py --real DIR --fake DIR [--flag value]...

DIR is a folder of images in any layout that training reads, a folder that sample.py wrote, or generated images such as
generated:hazelnut/test/20. Prints a table for each network, and with --out writes it as JSON.
"""
import json
import sys
from dataclasses import dataclass, field
from pathlib import Path

import torch

import launch
from data import ImageSet, load
from data.atomic import write_atomic
from data.drawn import file_names, read_drawn, smallest_side
from data.source import GENERATED
from data.transforms import Transform
from metrics import networks
from metrics.table import as_text, measure

SIDE = 64   # of generated images


@dataclass
class Config:
    real: str = ""  # images that were not trained on; the more, the surer
    fake: str = ""  # the samples
    train: str = ""  # the images that were trained on: are the samples copies of them
    features: list[str] = field(default_factory=lambda: ["tiny-features"])  # network, or file of a published one; repeat
    size: int = 0  # side in pixels that all images are brought to; 0: that of the smallest sample
    device: str = "auto"  # auto | cpu | cuda | mps
    out: str = ""  # .json file of the numbers


def main(argv=None):
    cfg = launch.configure(Config, argv)
    for name in ("real", "fake"):
        if not getattr(cfg, name):
            raise ValueError(f"--{name} must name a folder of images, found none")
    device = launch.device(cfg.device)
    fake, real, train = images_of(cfg)
    tables, judge = [], networks.load("tiny-features", device)
    for spec in cfg.features:
        tables.append(measure(networks.load(spec, device), fake, real, train, judge))
        print(as_text(tables[-1]), end="\n\n")
    if cfg.out:
        write_atomic(cfg.out, json.dumps(tables, indent=2).encode() + b"\n")


def images_of(cfg) -> tuple[ImageSet, ImageSet, ImageSet | None]:
    """Samples, real and training images at one size, with the classes that they share, or all of one class."""
    side = cfg.size or (SIDE if cfg.fake.startswith(GENERATED) else smallest_side(cfg.fake))
    real, train = (read(source, Transform(side)) if source else None for source in (cfg.real, cfg.train))
    fake = read(cfg.fake, Transform(side), real.classes)
    sets = [images for images in (fake, real, train) if images is not None]
    common = [name for name in real.classes if all(name in images.classes for images in sets)]
    whole = all(set(images.classes) == set(common) for images in sets)
    if not whole:
        print(f"classes: {', '.join(real.classes)} of the real images, {', '.join(fake.classes)} of the samples; they "
              f"differ, so that nothing is told by class")
    return tuple(images and recast(images, common if whole else ["all"]) for images in (fake, real, train))


def read(source: str, transform: Transform, classes: list[str] = ()) -> ImageSet:
    """The images; those of sample.py have the classes that it wrote into their names, if they are among `classes`."""
    if source.startswith(GENERATED):
        return load(source, transform)
    found = read_drawn(source, transform)
    known = dict(zip(file_names(classes), classes))
    return found._replace(classes=[known.get(name, name) for name in found.classes])


def recast(images: ImageSet, classes: list[str]) -> ImageSet:
    """The images with these classes in this order; all of the first if they have others."""
    rows = [classes.index(name) if name in classes else 0 for name in images.classes]
    return images._replace(labels=torch.tensor(rows)[images.labels], classes=classes)


if __name__ == "__main__":
    try:
        main()
    except (ValueError, OSError) as error:
        sys.exit(f"error: {error}")

"""New rows in the class table of a DiT, and where each starts: which old rows it is the mean of.

The label "crack" of a nut is most like "crack" of other products, and a buckeye is the ImageNet class most like a
hazelnut; a row that starts near needs fewer images to arrive.
"""

from collections.abc import Callable

import torch

from config.training import Images
from data import ImageSet, load
from data.latents import LatentCache
from dit import DiT, resize_classes
from dit.classes import last_part, nearest_words, row_of, words_of
from ops.random import generator_for
from recipes.images.pixels import transform
from recipes.models.similar_rows import similar_rows
from sampling import NoisePath, Schedule, dit_schedule
from unet import VAE

CLASSIFIER_STEPS = 8  # timesteps at which `nearest` compares denoising errors
PRINTED = 40  # lines, one a class
NEAREST_IMAGES = 4  # of each class, to find the old class most like it


def row_names(images: ImageSet) -> list[str]:
    """What each row of the class table means: the classes, then their superclasses. The null row is after those."""
    return images.classes + sorted(set(images.parents.values()))


def fit_classes(
    model: DiT,
    vae: VAE,
    images: ImageSet,
    encoded: LatentCache,
    class_init: str,
    settings: Images,
    seed: int,
    features: str = "",
) -> list[list[int]] | None:
    """A class table for the images' classes and superclasses, unless the checkpoint was made for just these.

    Superclasses that it has besides stay. Returns the old rows that each new one is the mean of, or None where the
    table was left alone, and where a table of another length starts from the mean of all old rows throughout, which is
    what a file without sources means. features: the network of class_init "features", "" for tiny-features.
    """
    old, names, rows = model.classes, row_names(images), model.config.num_classes
    parents, model.parents, count = model.parents, images.parents, len(images.classes)
    own = bool(old) and old[:count] == images.classes and set(old[count:]) <= set(parents.values())
    if own and set(names) <= set(old):
        model.parents = parents | images.parents
        return None

    def nearest() -> list[int]:
        path = dit_schedule(model.noise_schedule, objective=model.objective)
        of_class = images.labels.argsort(stable=True).split(images.labels.bincount(minlength=count).tolist())
        index = torch.cat([numbers[:NEAREST_IMAGES] for numbers in of_class])
        x0 = vae.config.scaling_factor * encoded.mean[index, 0].float().to(next(model.parameters()).device)
        return nearest_rows(model, x0, images.labels[index], rows, path)

    def similar(source: str) -> list[int]:
        known = load(source, transform(settings, images.pixels.shape[1])) if source else None
        named = old and [name for name in old if name not in parents.values()]
        return similar_rows(images, known, named, rows, features)

    # where only the superclasses are new, the classes keep their rows
    kept = [[i] for i in range(count)]
    sources = kept if own else init_rows(class_init, old, rows, images.classes, nearest, similar)
    sources += superclass_rows(sources, old, images.classes, images.parents)
    resize_classes(model, sources, generator_for(seed, -1))
    model.classes = names
    for name, ids in list(zip(names, sources))[:PRINTED]:
        shown = ", ".join(old[i] if old else str(i) for i in ids[:6]) + (", ..." if len(ids) > 6 else "")
        print(f"class {name}: starts from {f'the mean of {shown}' if len(ids) > 1 else shown or 'random numbers'}")
    if len(names) > PRINTED:
        print(f"... and {len(names) - PRINTED} more classes")
    everything = list(range(rows))
    return None if len(sources) != rows and all(ids == everything for ids in sources) else sources


def init_rows(
    class_init: str, old: list[str] | None, rows: int, new: list[str], nearest: Callable, similar: Callable
) -> list[list[int]]:
    """Old row ids whose mean each new class starts from; [] means a random row.

    class_init: "name"    old classes of the same last name ("*/crack" for "hazelnut/crack") or word, else "mean"
           "nearest" what `nearest()` answers, one id a new class
           "features" or "features:DATA" what `similar("")` or `similar("DATA")` answers, likewise
           "mean"    all old classes
           "random"  none
           otherwise one old class for all, by its name, last part, word or id: "buckeye"
    old: names of the old classes if the checkpoint has them; rows: their number. ValueError for a class not known.
    """
    everything = list(range(rows))
    if class_init == "mean":
        return [everything for _ in new]
    if class_init == "random":
        return [[] for _ in new]
    if class_init == "nearest":
        return [[row] for row in nearest()]
    if class_init.partition(":")[0] == "features":
        return [[row] for row in similar(class_init.partition(":")[2])]
    if class_init == "name":
        known = [{last_part(name), *words_of(name)} for name in old or []]
        same = [[i for i, words in enumerate(known) if last_part(wanted) in words] for wanted in new]
        return [ids or everything for ids in same]
    try:
        row = row_of(class_init, old or [str(i) for i in range(rows)])
    except ValueError as error:
        if "several" in str(error):
            raise ValueError(f"class_init: {error}") from None
    else:
        return [[row] for _ in new]
    near = " or ".join(map(repr, nearest_words(class_init, old or [])))
    raise ValueError(
        f"class_init {class_init!r} is none of name, nearest, features, mean, random, an id in 0..{rows - 1}"
        + (f" or a class of the checkpoint; did you mean {near}?" if near else "")
    )


def superclass_rows(
    sources: list[list[int]], old: list[str] | None, classes: list[str], parents: dict[str, str]
) -> list[list[int]]:
    """Old row ids whose mean each superclass starts from, in the order of their names.

    Its own row where the checkpoint has one of that name; else all rows that its classes start from, `sources`.
    """

    def rows(name: str) -> list[int]:
        own = [old.index(name)] if old and name in old else []
        return own or sorted({row for label, ids in zip(classes, sources) if parents[label] == name for row in ids})

    return [rows(name) for name in sorted(set(parents.values()))]


@torch.no_grad()
def nearest_rows(
    model: DiT, x0: torch.Tensor, labels: torch.Tensor, rows: int, schedule: NoisePath, seed: int = 0, batch: int = 64
) -> list[int]:
    """For every new class the old row under which the model denoises its images best (Li et al. 2023, eq. 7).

    x0 (N, C, H, W) scaled latents, labels (N,) new classes. The same timesteps and noise for all rows: only the row
    decides. Costs CLASSIFIER_STEPS forward passes for every image and old row, so give it a few images of a class.
    """
    generator = torch.Generator().manual_seed(seed)
    last = len(schedule.alpha_bar) if isinstance(schedule, Schedule) else 1
    times = torch.linspace(0.1 * last, 0.8 * last, CLASSIFIER_STEPS)
    times = times.long() if isinstance(schedule, Schedule) else times
    chosen = []
    for label in range(int(labels.max()) + 1):
        images = x0[labels == label].repeat_interleave(len(times), 0)  # (B, C, H, W)
        t = times.repeat(len(images) // len(times)).to(images.device)  # (B,)
        eps = torch.randn(images.shape, generator=generator).to(images)
        x_t = schedule.add_noise(images, eps, t)
        errors = []
        for row in range(rows):
            y = torch.full((len(images),), row, device=images.device)
            error = 0.0
            for i in range(0, len(images), batch):
                part = slice(i, i + batch)
                out = model(x_t[part], schedule.told(t[part]), y[part]).float()
                out, _ = schedule.split(out, images[part])
                error += (out - schedule.target(images[part], eps[part], t[part])).square().sum().item()
            errors.append(error)
        chosen.append(min(range(rows), key=errors.__getitem__))
    return chosen

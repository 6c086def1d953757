"""class_label: a DiT is fine-tuned on labelled images, by denoising their latents under their class."""

from functools import partial
from pathlib import Path

import torch

import adapters
import weights
from config import Config
from config import training as part
from ops.device import Compute
from ops.random import generator_for
<<<<<<< HEAD
from recipes.conditions.classes import Classes, new_classes
from recipes.evaluation import evaluation
from recipes.job import Job, header_settings
from recipes.latents import reconstruct
from recipes.objectives.denoise import denoising
from sampling import dit_schedule
from training.monitor import monitor
from training.report import show_and_measure
=======
from recipes import Recipe
from recipes.latent import denoising_loss, encode, latent_batches, settings, through
from recipes.masks import mask_weights
from recipes.measure import COLUMNS, show_and_measure
from recipes.pixels import augmentations, held_out_loss, train_and_val, transform
from recipes.start import nearest_rows, similar_rows, start_rows, superclass_rows
from recipes.watch import watcher
from sampling import Schedule, batched_cfg, dit_schedule, sample_latents
from unet import VAE

NEAREST_IMAGES = 4  # of each class, to find the old class most like it
>>>>>>> 28e97640aa78570e4401ebee0c5397035c61048d


def class_label(config: Config, compute: Compute) -> Job:
    """The model is a checkpoint, or new:SIZE for random weights; see conditions/classes.py for its class table.

    Leaves adapter.safetensors, or model.safetensors where everything trains, and metrics.json.
    """
    loss_options, sampling, seed = config[part.Denoising], config[part.Sampling], config[part.Run].seed
    superclass, specs = config[part.Superclasses].superclass, config[part.Adapter].adapter
    if superclass > 1 - loss_options.cond_dropout:
        raise ValueError(
            f"superclass must be a share of the labels that are not dropped, 0 to {1 - loss_options.cond_dropout:g}, "
            f"found {superclass}"
        )
    base = config[part.Base].model
    if base.startswith("new:") and specs != ["full"]:
        raise ValueError(f"a new model has no weights to keep: its adapter is full, found {' + '.join(specs)}")
    if base.startswith("new:") and not config[part.Images].size:
        raise ValueError("a new model has no image size of its own: give --size")
    condition = new_classes(
        base,
        config[part.Autoencoder].vae,
        config[part.Images],
        config[part.HeldOut].val,
        config[part.Superclasses],
        config[part.ClassRows].class_init if part.ClassRows in config else "",
        seed,
        config[part.Latents].cache,
        compute,
    )
    model, changing = condition.model, config[part.NoiseSchedule].noise_schedule
    if changing != "fixed":
        model.noise_schedule = changing  # what the tuned model is sampled with, and its file says so
    specs = condition.methods(specs)
    adapters.attach(model, specs, generator_for(seed, -2))
    fixed = condition.schedule
    loss = denoising(
        model,
        (lambda progress: fixed) if changing == "fixed" else partial(dit_schedule, changing),
        loss_options.noise_offset,
        loss_options.min_snr,
    )
    count, decides = config[part.Grid].count, config[part.Stopping].acts
    shown = [name for name in condition.columns for _ in range(count)]
    measure = monitor(condition.images.pixels, condition.kinds(), shown, decides, compute.device)
    evaluate = evaluation(condition, loss, condition.held_out(), sampling, count, seed, measure)

    def finish(run):
        save(run, condition, specs, config[part.Images].data, header_settings(config))
        if config[part.Measure].measure:

            def sample(labels: torch.Tensor, apart: int):
                return condition.sample(labels, sampling, seed + apart)

            through = partial(reconstruct, condition.vae)
            images, val = condition.images, condition.val
            show_and_measure(run, config[part.Measure].measure, sample, through, images, val, compute.device)

    batches = condition.batches(loss_options, superclass)
    return Job(model, specs, condition.names, batches, loss, evaluate, finish)


<<<<<<< HEAD
def save(run: Path, condition: Classes, specs: list[str], data: str, settings: dict) -> None:
    """The whole model where all of it trained, else its adapter file, with the settings in the header."""
    model = condition.model
    if specs == ["full"]:
        about = {"classes": model.classes, "parents": model.parents, "data": data}
        card = about | {"noise_schedule": model.noise_schedule}
        weights.save_model(model, run / "model.safetensors", card=card)
    else:
        header = condition.header | {"adapter": specs, "config": settings}
        weights.save_adapter(run / "adapter.safetensors", model, header)
=======
def painter(cfg, model: DiT, vae: VAE, null: int | torch.Tensor | None, schedule: Schedule, device):
    """pictures(labels, seed) -> uint8 (N, S, S, 3): what sample.py draws for the same labels and seed.

    null: the row that guidance leads away from, one for all or one for each class.
    """

    def pictures(labels, seed):
        away = null[labels] if isinstance(null, torch.Tensor) else null
        with autocast(cfg.precision, device):
            denoiser = batched_cfg(model, labels.to(device), away, cfg.guidance if null is not None else 1.0)
            z = sample_latents(
                denoiser,
                range(len(labels)),
                model.latent_shape,
                schedule,
                cfg.sampler,
                cfg.sample_steps,
                cfg.seed + seed,
                device=device,
            )
            return to_uint8(vae.images(z))

    return pictures


def backbone(cfg, vae: VAE, device) -> tuple[DiT | None, int]:
    """The checkpoint's DiT and the image side it works at; None and the config's side for new:SIZE."""
    if cfg.model.startswith("new:"):
        if cfg.adapter != ["full"]:
            found = " + ".join(cfg.adapter)
            raise ValueError(f"a new model has no weights to keep: its adapter is full, found {found}")
        if not cfg.size:
            raise ValueError("a new model has no image size of its own: give --size")
        return None, cfg.size
    sides = {"input_size": cfg.size // vae.factor} if cfg.size else {}
    model = weights.load(cfg.model, expect="dit", dtype=torch.float32, **sides)
    if model.config.in_channels != vae.config.latent_channels:
        raise ValueError(
            f"{cfg.model} works on latents of {model.config.in_channels} channels, {cfg.vae} makes "
            f"{vae.config.latent_channels}"
        )
    return model.to(device), model.config.input_size * vae.factor


def with_superclasses(cfg, images: ImageSet) -> ImageSet:
    """`images.parents` if the config's `superclass` asks for them, else none."""
    if not 0 <= cfg.superclass <= 1 - cfg.drop:
        raise ValueError(
            f"superclass must be a share of the labels that are not dropped, 0 to {1 - cfg.drop:g}, "
            f"found {cfg.superclass}"
        )
    if cfg.superclass:
        return with_parents(images, cfg.hierarchy)
    if cfg.hierarchy:
        raise ValueError(
            f"hierarchy {cfg.hierarchy} is of no use without superclass, which is how often a superclass "
            f"replaces a label"
        )
    return images._replace(parents={})


def row_names(images: ImageSet) -> list[str]:
    """What each row of the class table means: the classes, then their superclasses. The null row is after those."""
    return images.classes + sorted(set(images.parents.values()))


def rows_above(model: DiT, images: ImageSet) -> torch.Tensor | None:
    """The row of each class's superclass, (classes,); None without superclasses."""
    row = {name: i for i, name in enumerate(model.classes)}
    return torch.tensor([row[images.parents[name]] for name in images.classes]) if images.parents else None


def new_model(cfg, vae: VAE, side: int, classes: list[str]) -> DiT:
    """A DiT of one of the named sizes with random weights."""
    name = cfg.model.removeprefix("new:")
    if name not in SIZES:
        raise ValueError(f"unknown size {name!r}; new models are {', '.join('new:' + size for size in SIZES)}")
    model = DiT.from_name(
        name, input_size=side // vae.factor, in_channels=vae.config.latent_channels, num_classes=len(classes)
    )
    model.classes = classes
    return model


def own_schedule(cfg, model: DiT) -> Schedule:
    """What the tuned model is drawn with; its name is the model's `noise_schedule`, that of the checkpoint if fixed."""
    if cfg.noise_schedule != "fixed":
        model.noise_schedule = cfg.noise_schedule
    return dit_schedule(model.noise_schedule)


def fit_classes(cfg, model: DiT, vae: VAE, images: ImageSet, encoded, device):
    """A class table for the images' classes and superclasses, unless the checkpoint was made for just these.

    Superclasses that it has besides stay. Returns the old rows that each new one started from, or None where the table
    was left alone.
    """
    old, names, rows = model.classes, row_names(images), model.config.num_classes
    parents, model.parents, count = model.parents, images.parents, len(images.classes)
    own = bool(old) and old[:count] == images.classes and set(old[count:]) <= set(parents.values())
    if own and set(names) <= set(old):
        model.parents = parents | images.parents
        return None

    def nearest():
        index = torch.cat([(images.labels == i).nonzero()[:NEAREST_IMAGES, 0] for i in range(len(images.classes))])
        x0 = vae.config.scaling_factor * encoded.mean[index, 0].float().to(device)
        return nearest_rows(model, x0, images.labels[index], rows, dit_schedule(model.noise_schedule))

    def similar(source):
        known = load(source, transform(cfg, images.pixels.shape[1])) if source else None
        return similar_rows(images, known, old and [name for name in old if name not in parents.values()], rows)

    # where only the superclasses are new, the classes keep their rows
    sources = [[i] for i in range(count)] if own else start_rows(cfg.start, old, rows, images.classes, nearest, similar)
    sources += superclass_rows(sources, old, images.classes, images.parents)
    resize_classes(model, sources, generator_for(cfg.seed, -1))
    model.classes = names
    for name, ids in zip(names, sources):
        shown = ", ".join(old[i] if old else str(i) for i in ids[:6]) + (", ..." if len(ids) > 6 else "")
        print(f"class {name}: starts from {f'the mean of {shown}' if len(ids) > 1 else shown or 'random numbers'}")
    return sources


def attach(cfg, model: DiT) -> list[str]:
    """The config's adapters, and the class table with any of them: a new class needs its row, as DiffFit counts it.

    Returns the specs as attached.
    """
    named = {adapters.parse(adapters.split(spec)[1])[0] for spec in cfg.adapter}
    table = [] if named & {"full", "classes", "difffit"} else ["classes"]
    adapters.attach(model, cfg.adapter + table, generator_for(cfg.seed, -2))
    return cfg.adapter + table
>>>>>>> 28e97640aa78570e4401ebee0c5397035c61048d

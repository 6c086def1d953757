"""Fine-tune a class-conditional DiT on the latents of labelled images (Peebles & Xie 2023, sec. 3 and 4).

    z0 = scale * (mean + std * noise) of q(z|x)
    z_t = sqrt(abar_t) z0 + sqrt(1 - abar_t) eps,    loss(model(z_t, t, y), eps)

With masks of what matters, the squared error weighs `mask_weight` there and 1 elsewhere (DriveDiTFit, Tu et al. 2024):
a defect is a hundredth of the picture, and of an even loss. Their betas too may change as the training goes on, see
`noise_schedule` and sampling/progressive.py. The label is replaced by the null row with probability `drop`, here and
not inside the network: guidance needs both. With probability `superclass` it is replaced by the row of its superclass,
which the class table has after those of the classes (the TieredEmbedder of FineDiffusion, Pan et al. 2024, arXiv
2402.18331); guidance then leads from there.
"""

from functools import partial

import torch

import adapters
import launch
import weights
from data import ImageSet, load
from data.folders.hierarchy import with_parents
from data.output.grid import grid, save_image
from data.transforms import to_uint8
from dit import SIZES, DiT, resize_classes
from recipes import Recipe
from recipes.latent import denoising_loss, encode, latent_batches, settings, through
from recipes.masks import mask_weights
from recipes.measure import COLUMNS, show_and_measure
from recipes.pixels import augmentations, held_out_loss, train_and_val, transform
from recipes.start import nearest_rows, similar_rows, start_rows, superclass_rows
from recipes.watch import watcher
from sampling import Schedule, dit_schedule, draw, guided
from unet import VAE

NEAREST_IMAGES = 4  # of each class, to find the old class most like it


def class_label(cfg, device) -> Recipe:
    """Batches of latents with their labels, one augmented variant of each image drawn a step.

    The model is a checkpoint, its class table made anew unless the classes are its own, or new:SIZE. Leaves
    adapter.safetensors, or model.safetensors where everything trains, and metrics.json.
    """
    vae = weights.load(cfg.vae, expect="vae", dtype=torch.float32).to(device).requires_grad_(False)
    model, side = backbone(cfg, vae, device)
    images, val = train_and_val(cfg, side)
    images = with_superclasses(cfg, images)
    encoded = encode(cfg, vae, images, augmentations(cfg), device)
    if model is None:
        model, header = new_model(cfg, vae, side, row_names(images)).to(device), {}
        model.parents = images.parents
    else:
        header = {"base": weights.fingerprint(model)}
        header["sources"] = fit_classes(cfg, model, vae, images, encoded, device)
    schedule = own_schedule(cfg, model)
    header |= {"classes": model.classes, "parents": model.parents or None}
    header["adapter"] = attach(cfg, model)
    scale = vae.config.scaling_factor
    null = model.null if model.config.class_dropout else None
    above = rows_above(model, images)
    maps = mask_weights(cfg, images, augmentations(cfg), vae.factor)
    batch = latent_batches(encoded, images.labels, scale, null, cfg.drop, maps, above, cfg.superclass)

    def loss(batch, generator, progress):
        now = dit_schedule("progressive", progress) if cfg.noise_schedule == "progressive" else schedule
        return denoising_loss(cfg, model, now, generator, batch["x0"], batch["y"], batch.get("weight"))

    pictures = painter(cfg, model, vae, null if above is None else above, schedule, device)
    shown = torch.arange(len(images.classes))[:COLUMNS].repeat_interleave(cfg.count)
    known, asked = ([images.classes[i] for i in labels] for labels in (images.labels, shown))
    watch, plain = watcher(cfg, images.pixels, known, asked, device), None
    if val is not None:
        plain = latent_batches(encode(cfg, vae, val, augmentations(cfg)[:1], device), val.labels, scale, None, 0)

    def look(run, step):
        drawn = pictures(shown, 0)
        columns = {images.classes[i]: list(drawn[shown.numpy() == i]) for i in shown.unique().tolist()}
        save_image(run / "samples" / f"step_{step:06d}.png", grid(columns))
        numbers = {"step": step} | watch(drawn)
        return numbers | ({"val": held_out_loss(plain, loss, len(val.names), device)} if plain else {})

    def finish(run):
        if header["adapter"] == ["full"]:
            card = {
                "classes": model.classes,
                "parents": model.parents,
                "data": cfg.data,
                "noise_schedule": model.noise_schedule,
            }
            weights.save_model(model, run / "model.safetensors", card=card)
        else:
            weights.save_adapter(run / "adapter.safetensors", model, header | {"config": settings(cfg)})
        if cfg.measure:
            show_and_measure(cfg, run, pictures, partial(through, vae), images, val, device)

    return Recipe(model, header["adapter"], images.names, batch, loss, look, finish)


def painter(cfg, model: DiT, vae: VAE, null: int | torch.Tensor | None, schedule: Schedule, device):
    """pictures(labels, seed) -> uint8 (N, S, S, 3): what sample.py draws for the same labels and seed.

    null: the row that guidance leads away from, one for all or one for each class.
    """

    def pictures(labels, seed):
        away = null[labels] if isinstance(null, torch.Tensor) else null
        with torch.autocast(device.type, torch.bfloat16, enabled=launch.bf16(cfg.precision, device)):
            denoiser = guided(model, labels.to(device), away, cfg.guidance if null is not None else 1.0)
            z = draw(
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
    resize_classes(model, sources, launch.keyed(cfg.seed, -1))
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
    adapters.attach(model, cfg.adapter + table, launch.keyed(cfg.seed, -2))
    return cfg.adapter + table

"""consistency: a model is distilled into an adapter that samples in 4 steps of one evaluation (LCM-LoRA).

The teacher is the model as loaded, with the adapter files of --init merged into it; see objectives/consistency.py.
"""

from functools import partial

import torch

import adapters
import weights
from config import Config
from config import training as part
from ops.device import Compute
from ops.random import generator_for
<<<<<<< HEAD
from recipes.conditions.captions import Captions, load_sd
from recipes.conditions.classes import Classes, known_classes
from recipes.evaluation import evaluation, show_captioned
from recipes.job import Job, header_settings
from recipes.latents import reconstruct
from recipes.objectives.consistency import distillation
from training.report import show_and_measure
=======
from recipes import Recipe, class_label, text
from recipes.latent import begin, encode, settings, through
from recipes.measure import show_and_measure
from recipes.pixels import augmentations, held_out_loss, train_and_val
from sampling import Schedule, conditional, consistency_loss, dit_schedule
from unet import TextConditioned
>>>>>>> 28e97640aa78570e4401ebee0c5397035c61048d

STUDENT = part.Sampling(sampler="lcm", sample_steps=4, guidance=1.0)  # how the student samples: guidance is inside


def consistency(config: Config, compute: Compute) -> Job:
    """Distils a DiT or a Stable Diffusion, as the images of --data condition it.

    Leaves adapter.safetensors, which is for the model with --init; its header says how it samples.
    """
    captioned, seed, guidance = part.Captions in config, config[part.Run].seed, config[part.Teacher].guidance
    condition = (with_captions if captioned else with_classes)(config, compute)
    model, specs = condition.model, config[part.Adapter].adapter
    specs = condition.methods(specs) if captioned else specs  # the student of a DiT learns no class row
    teacher = adapters.layer_classes(model)
    adapters.attach(model, specs, generator_for(seed, -2))
    adapters.check_detachable(model)
    null = condition.null if captioned or guidance != 1 else None
    without_adapter = partial(adapters.disable_adapters, teacher)
    loss = distillation(model, without_adapter, condition.schedule, null, guidance)
    held_out = condition.held_out(config[part.HeldOut].val) if captioned else condition.held_out()
    evaluate = evaluation(condition, loss, held_out, STUDENT, config[part.Grid].count, seed)

    def finish(run):
        settings = header_settings(config) | vars(STUDENT) | {"teacher_guidance": guidance}
        header = condition.header | {"adapter": specs, "config": settings}
        if captioned:
            show_captioned(run, condition, STUDENT, seed + 1)
        weights.save_adapter(run / "adapter.safetensors", model, header)
        if not captioned and config[part.Measure].measure:

            def sample(labels: torch.Tensor, apart: int):
                return condition.sample(labels, STUDENT, seed + apart)

            through = partial(reconstruct, condition.vae)
            images, val = condition.images, condition.val
            show_and_measure(run, config[part.Measure].measure, sample, through, images, val, compute.device)

    return Job(model, specs, condition.names, condition.batches(), loss, evaluate, finish, condition.rates)


def with_classes(config: Config, compute: Compute) -> Classes:
    """A DiT that knows the classes of the images."""
    base, vae, val = config[part.Base].model, config[part.Autoencoder].vae, config[part.HeldOut].val
    init, cache = config[part.StartFiles].init, config[part.Latents].cache
    return known_classes(base, vae, config[part.Images], val, init, cache, compute)


<<<<<<< HEAD
def with_captions(config: Config, compute: Compute) -> Captions:
    """A Stable Diffusion and captioned images."""
    sd, template, init = (
        load_sd(config[part.Base].model, compute),
        config[part.Captions].template,
        config[part.StartFiles].init,
    )
    prompts, text_lr, cache = config[part.Prompts].prompts, config[part.TextRate].text_lr, config[part.Latents].cache
    return Captions(sd, config[part.Images], template, cache, compute, prompts, text_lr, init)
=======
def as_student(cfg):
    """The config that the student is trained and drawn with: conditional, in few steps, guidance within."""
    return replace(cfg, drop=0.0, mask_weight=1.0, sampler="lcm", sample_steps=STEPS, guidance=1.0)


def few_steps(files: list[tuple[str, float]]) -> dict:
    """Settings of sample.py that the header of a distilled adapter among the files asks for; {} if there is none."""
    for file, _ in files:
        config = {} if weights.is_foreign(file) else weights.load_adapter(file)[1]["config"] or {}
        if config.get("recipe") == "consistency":
            return {"sampler": config["sampler"], "steps": config["sample_steps"], "guidance": config["guidance"]}
    return {}


def student(cfg, model, specs: list[str]) -> tuple[dict, Callable]:
    """cfg.init into the model, then the methods beside it -> the adapter file's header, and `before`, the teacher."""
    config = settings(as_student(cfg)) | {"teacher_guidance": cfg.guidance}
    header = {"adapter": specs, "base": weights.fingerprint(model), "config": config}
    begin(cfg, model)
    classes = adapters.layer_classes(model)
    adapters.attach(model, specs, generator_for(cfg.seed, -2))
    adapters.check_detachable(model)
    return header, partial(adapters.disable_adapters, classes)


def distillation(cfg, model, before: Callable, schedule: Schedule, null) -> Callable:
    """loss(batch, generator, progress) of batches of x0 (B, C, H, W) and cond, whatever the model takes for one."""

    def loss(batch, generator, progress):
        guided = sampling.cfg(model, batch["cond"], null, cfg.guidance)

        def teacher(x, t):
            with before():
                return guided(x, t)

        return consistency_loss(conditional(model, batch["cond"]), teacher, batch["x0"], schedule, generator)

    return loss


def rows_of(cfg, model: DiT, images: ImageSet) -> torch.Tensor:
    """The row of the class table for each class of the images, (classes,). ValueError for one that has none."""
    known = model.classes or [str(i) for i in range(model.config.num_classes)]
    new = [name for name in images.classes if name not in known]
    if new:
        raise ValueError(
            f"{cfg.model} does not know the class {new[0]!r}, and what it does not draw cannot be "
            f"distilled: fine-tune it first, and name the adapter file by --init"
        )
    return torch.tensor([known.index(name) for name in images.classes])


def cut(columns: list[str], drawn) -> dict[str, list]:
    """Pictures (N, S, S, 3), column by column, under the names of their columns."""
    count = len(drawn) // len(columns)
    return {name: list(drawn[i * count : (i + 1) * count]) for i, name in enumerate(columns)}
>>>>>>> 28e97640aa78570e4401ebee0c5397035c61048d

"""Distil a model to a few steps: an adapter that jumps along the paths of the model itself (LCM, Luo et al. 2023).

    x_prev = one DDIM step of the guided teacher from x_t,    loss = d(f(x_t, t), f(x_prev, t_prev))

arXiv 2310.04378, as an adapter: LCM-LoRA, arXiv 2311.05556; f, d and the steps are in sampling/consistency.py. The
teacher is the model as loaded, with the adapter files of `init` folded in. The student is the same network with the
adapter, which is off while the teacher answers, so that the weights are in memory once. The target comes from the
student too, without an average of its past, as in LCM-LoRA.

The teacher's guidance is cfg.guidance, away from the null class or the empty prompt. The paper draws w = scale - 1 from
5 to 15 for every sample and tells the network; LCM-LoRA draws it and tells nothing, so that its student learns a mean.
With one scale the student has one function to learn. It is drawn without guidance, with one evaluation a step.
"""

from collections.abc import Callable
from dataclasses import replace
from functools import partial

import torch

import adapters
import launch
import sampling
import weights
from data import ImageSet
from data.output.grid import grid, save_image, sections
from data.source import held_out
from dit import DiT
from recipes import Recipe, class_label, text
from recipes.latent import begin, encode, settings, through
from recipes.measure import show_and_measure
from recipes.pixels import augmentations, held_out_loss, train_and_val
from sampling import Schedule, bind, consistency_loss, dit_schedule
from unet import TextConditioned

STEPS = 4  # of the samples


def consistency(cfg, device) -> Recipe:
    """Distils the DiT or Stable Diffusion of cfg.model, as the images of cfg.data condition it.

    Leaves adapter.safetensors, which is for the model with cfg.init; its header says how it is drawn.
    """
    return (of_captions if weights.is_sd(cfg.model) else of_classes)(cfg, device)


def of_classes(cfg, device) -> Recipe:
    """A DiT, on latents of labelled images whose classes it knows."""
    vae = weights.load(cfg.vae, expect="vae", dtype=torch.float32).to(device).requires_grad_(False)
    model, side = class_label.backbone(cfg, vae, device)
    header, before = student(cfg, model, cfg.adapter)
    schedule = dit_schedule(model.noise_schedule)
    images, val = train_and_val(cfg, side)
    rows, scale = rows_of(cfg, model, images), vae.config.scaling_factor

    def batches(images, options):
        return text.caption_batches(encode(cfg, vae, images, options, device), rows, images.labels, scale, 0)

    loss = distillation(cfg, model, before, schedule, model.null if cfg.guidance != 1 else None)
    plain = None if val is None else batches(val, augmentations(cfg)[:1])
    draw = class_label.painter(as_student(cfg), model, vae, None, schedule, device)
    columns = images.classes[: text.COLUMNS]

    def pictures(labels, seed):
        return draw(rows[labels], seed)

    def look(run, step):
        drawn = pictures(torch.arange(len(columns)).repeat_interleave(cfg.count), 0)
        save_image(run / "samples" / f"step_{step:06d}.png", grid(cut(columns, drawn)))
        return {"step": step} | ({"val": held_out_loss(plain, loss, len(val.names), device)} if plain else {})

    def finish(run):
        weights.save_adapter(run / "adapter.safetensors", model, header)
        if cfg.measure:
            show_and_measure(cfg, run, pictures, partial(through, vae), images, val, device)

    return Recipe(model, cfg.adapter, images.names, batches(images, augmentations(cfg)), loss, look, finish)


def of_captions(cfg, device) -> Recipe:
    """A Stable Diffusion, on latents of images with captions. A method without a part is for the UNet."""
    few, sd = as_student(cfg), text.load(cfg, device)
    weights.add_words(sd.tokenizer, cfg.init)
    model = TextConditioned(sd.unet, sd.text)
    header, before = student(cfg, model, [spec if adapters.split(spec)[0] else f"unet.{spec}" for spec in cfg.adapter])
    images, captions = text.captioned(cfg, sd, cfg.data)
    texts, batches = [item.caption for item in captions.items], text.batcher(few, sd, model, device)
    places = torch.tensor(captions.places)
    own = batches(images, texts)
    null, _ = text.read_once(model, sd.tokenizer, [], device)  # (1, L) or (1, L, D)
    loss = distillation(cfg, model, before, sd.schedule, null)
    source, plain, held = held_out(cfg.data, cfg.val), None, []
    if source:
        val, found = text.captioned(cfg, sd, source)
        plain, held = batches(val, [item.caption for item in found.items], held_out=True), val.names
    draw, columns = text.painter(few, model, sd, device), (cfg.prompts or list(dict.fromkeys(texts)))[: text.COLUMNS]

    def batch(index, generator):
        return own(places[index], generator)

    def pictures(count, seed):
        return grid(cut(columns, draw([prompt for prompt in columns for _ in range(count)], seed)))

    def look(run, step):
        save_image(run / "samples" / f"step_{step:06d}.png", pictures(cfg.count, 0))
        return {"step": step} | ({"val": held_out_loss(plain, loss, len(held), device)} if plain else {})

    def finish(run):
        some = {name: [image] for name, image in zip(texts[: text.COLUMNS], images.pixels)}
        save_image(run / "grid.png", sections({"images": grid(some), "samples": pictures(text.ROWS, 1)}, beside=False))
        weights.save_adapter(run / "adapter.safetensors", model, header)

    names, rates = [images.names[i] for i in places], {"text.": cfg.text_lr} if cfg.text_lr else {}
    return Recipe(model, header["adapter"], names, batch, loss, look, finish, rates)


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
    return header, adapters.attach_beside(model, specs, launch.keyed(cfg.seed, -2))


def distillation(cfg, model, before: Callable, schedule: Schedule, null) -> Callable:
    """loss(batch, generator, progress) of batches of x0 (B, C, H, W) and cond, whatever the model takes for one."""

    def loss(batch, generator, progress):
        guided = sampling.cfg(model, batch["cond"], null, cfg.guidance)

        def teacher(x, t):
            with before():
                return guided(x, t)

        return consistency_loss(bind(model, batch["cond"]), teacher, batch["x0"], schedule, generator)

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

"""consistency: a model is distilled into an adapter that samples in 4 steps of one evaluation (LCM-LoRA).

The teacher is the model as loaded, with the adapter files of --init merged into it; see objectives/consistency.py.
"""

from functools import partial
from pathlib import Path

import adapters
import weights
from config import Config
from config import training as part
from ops.device import Compute
from ops.random import generator_for
from recipes.conditions.captions import Captions
from recipes.conditions.classes import Classes, known_classes
from recipes.job import Job, header_settings
from recipes.models.loading import Checkpoint, load_sd
from recipes.models.store import for_training
from recipes.objectives.consistency import distillation
from recipes.samples.evaluation import evaluation, measure_classes, show_captioned

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
    for_training(adapters.attach(model, specs, generator_for(seed, -2)), compute, config[part.Blocks])
    adapters.check_detachable(model)
    null = condition.null if captioned or guidance != 1 else None
    if guidance != 1 and null is None:
        raise ValueError(f"guidance {guidance} of the teacher needs a null row in its class table; give --guidance 1")
    without_adapter = partial(adapters.disable_adapters, teacher)
    loss = distillation(model, without_adapter, condition.schedule, null, guidance)
    held_out = condition.held_out(config[part.HeldOut].val) if captioned else condition.held_out()
    evaluate = evaluation(condition, loss, held_out, STUDENT, config[part.Grid].count, seed)

    def finish(run: Path) -> None:
        settings = header_settings(config) | vars(STUDENT) | {"teacher_guidance": guidance}
        header = condition.header | {"adapter": specs, "config": settings}
        if captioned:
            show_captioned(run, condition, STUDENT, seed + 1)
        weights.save_adapter(run / "adapter.safetensors", model, header)
        if not captioned:
            measure_classes(run, config[part.Measure].measure, condition, STUDENT, seed, config[part.Features].features)

    batches, made_of = condition.batches(), condition.made_of(config[part.StartFiles].init)
    turns = condition.turns if captioned else []
    return Job(model, specs, condition.names, batches, loss, evaluate, finish, condition.rates, made_of, turns)


def with_classes(config: Config, compute: Compute) -> Classes:
    """A DiT that knows the classes of the images."""
    base, vae, val = config[part.Base].model, config[part.Autoencoder].vae, config[part.HeldOut].val
    init, cache = config[part.StartFiles].init, config[part.Latents].cache
    condition = known_classes(
        Checkpoint(base, heads=config[part.Heads].heads), vae, config[part.Images], val, init, cache, compute
    )
    if condition.model.objective == "flow":
        raise ValueError(f"consistency distils diffusion models, and {base} is a flow")
    return condition


def with_captions(config: Config, compute: Compute) -> Captions:
    """A Stable Diffusion and captioned images."""
    sd, init = load_sd(config[part.Base].model, compute), config[part.StartFiles].init
    prompts, text_lr, cache = config[part.Prompts].prompts, config[part.TextRate].text_lr, config[part.Latents].cache
    template, buckets = config[part.Captions].template, config[part.Buckets].buckets
    return Captions(sd, config[part.Images], template, cache, compute, prompts, text_lr, init, buckets)

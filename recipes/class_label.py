"""class_label: a DiT is fine-tuned on labelled images, by denoising their latents under their class."""

from pathlib import Path

import adapters
import weights
from config import Config
from config import training as part
from ops.device import Compute
from ops.random import generator_for
from recipes.conditions.classes import Classes, new_classes
from recipes.job import Job, header_settings
from recipes.models.loading import Checkpoint
from recipes.models.path import training_path
from recipes.models.store import for_training
from recipes.objectives.denoise import denoising
from recipes.samples.evaluation import evaluation, measure_classes, watched


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
    heads = config[part.Heads].heads if part.Heads in config else 0
    condition = new_classes(
        Checkpoint(base, config[part.Objective].objective, heads),
        config[part.Autoencoder].vae,
        config[part.Images],
        config[part.HeldOut].val,
        config[part.Superclasses],
        config[part.ClassRows].class_init if part.ClassRows in config else "",
        seed,
        config[part.Latents].cache,
        compute,
        config[part.Features].features,
    )
    model, specs = condition.model, condition.methods(specs)
    path = training_path(model, base, config[part.Objective], config[part.NoiseSchedule].noise_schedule, specs)
    for_training(adapters.attach(model, specs, generator_for(seed, -2)), compute, config[part.Blocks])
    loss = denoising(model, path, loss_options.noise_offset, loss_options.min_snr, loss_options.robust)
    count, features = config[part.Grid].count, config[part.Features]
    measure = watched(condition, count, config[part.Stopping], features, config[part.Scores])
    evaluate = evaluation(condition, loss, condition.held_out(), sampling, count, seed, measure)

    def finish(run: Path) -> None:
        save(run, condition, specs, config[part.Images].data, header_settings(config))
        measure_classes(run, config[part.Measure].measure, condition, sampling, seed, features.features)

    batches = condition.batches(loss_options, superclass=superclass)
    return Job(model, specs, condition.names, batches, loss, evaluate, finish, made_of=condition.made_of())


def save(run: Path, condition: Classes, specs: list[str], data: str, settings: dict) -> None:
    """The whole model where all of it trained, else its adapter file, with the settings in the header."""
    model = condition.model
    if specs == ["full"]:
        about = {"classes": model.classes, "parents": model.parents, "data": data}
        weights.save_model(model, run / "model.safetensors", card=about | {"noise_schedule": model.noise_schedule})
    else:
        header = condition.header | {"adapter": specs, "config": settings}
        weights.save_adapter(run / "adapter.safetensors", model, header)

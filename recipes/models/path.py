"""The path of a DiT's training: its diffusion chain, one that changes meanwhile, or a flow's times in some density."""

from collections.abc import Callable, Sequence
from dataclasses import fields
from functools import partial

import torch

from config.option import default_of, flag
from config.training import Objective
from dit import DiT
from sampling import Flow, NoisePath, dit_schedule


def training_path(
    model: DiT, base: str, settings: Objective, changing: str = "fixed", specs: Sequence[str] = ()
) -> Callable[[float], NoisePath]:
    """path(progress): what the model is trained on at that share of the training. Sets what it is sampled with.

    base: its name, for errors. changing: the noise schedule. specs: the adapters. A model of the other objective
    becomes one of the settings' where everything trains. ValueError where it does not, and for settings that its
    objective has no use for.
    """
    if settings.objective not in ("", model.objective):
        if specs != ["full"]:
            raise ValueError(
                f"{base} is a {model.objective} model, and --objective {settings.objective} makes another of it, "
                "for which everything must train: --adapter full"
            )
        become(model, settings.objective)
    if model.objective == "flow":
        if changing != "fixed":
            raise ValueError(f"--noise-schedule {changing} is for diffusion models, and {base} is a flow")
        path = Flow(settings.times or "uniform", settings.time_mean, settings.time_std, settings.time_shift)
        return lambda progress: path
    for field in fields(settings):
        if field.name != "objective" and getattr(settings, field.name) != default_of(field):
            raise ValueError(f"{flag(field.name)} is for flows, and {base} is a diffusion model")
    if changing != "fixed":
        model.noise_schedule = changing  # what the tuned model is sampled with, and its file says so
        return partial(dit_schedule, changing)
    fixed = dit_schedule(model.noise_schedule)
    return lambda progress: fixed


@torch.no_grad()
def become(model: DiT, objective: str) -> None:
    """Make the DiT one of the other objective. A flow's idle channels are set to 0, by which its file is known."""
    model.objective = objective
    if objective == "flow" and model.config.learn_sigma:
        C, last = model.config.in_channels, model.final_layer.linear
        for parameter in (last.weight, last.bias):
            parameter.unflatten(0, (-1, 2 * C))[:, C:] = 0  # rows (p q c)

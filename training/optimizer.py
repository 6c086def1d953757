"""How far a step goes: groups with rates of their own, the schedule of the learning rate, the decay of the average."""

import math

from torch import nn

from config.training import Loop

COOLDOWN = 0.2  # share of the steps, of the lr_schedule of that name


def param_groups(parameters: dict[str, nn.Parameter], rates: dict[str, float], lr: float) -> list[dict]:
    """Parameter groups of the optimizer: one for each start of a name with a rate of its own, and one for the rest."""
    groups = {}
    for name, parameter in parameters.items():
        peak = next((rate for start, rate in rates.items() if name.startswith(start)), lr)
        groups.setdefault(peak, []).append(parameter)
    return [{"params": group, "peak": peak} for peak, group in groups.items()]


def lr_factor(options: Loop, step: int) -> float:
    """Linear warm-up to 1, then 1, half a cosine down to 0, or 1 and in the last fifth 1 - sqrt(x) (cooldown).

    x is the share of that fifth that is done: the cooldown of Hägele et al. 2024 (arXiv 2405.18392), as good as a
    cosine, and a run saved before it can be made longer.
    """
    if step < options.warmup:
        return (step + 1) / options.warmup
    if options.lr_schedule == "constant":
        return 1.0
    if options.lr_schedule == "cooldown":
        return 1 - math.sqrt(max(0.0, 1 - (options.steps - step) / (COOLDOWN * options.steps)))
    return 0.5 * (1 + math.cos(math.pi * (step - options.warmup) / max(1, options.steps - options.warmup)))


def ema_decay(decay: float, step: int) -> float:
    """min(decay, (1 + step) / (10 + step)): in a short run the average soon forgets its start."""
    return min(decay, (1 + step) / (10 + step))

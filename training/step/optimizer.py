"""How far a step goes: groups with rates of their own, the schedule of the learning rate, the decay of the average."""

import math

import torch
from torch import Tensor, nn

from config.training import Loop
from ops.machine.pages import release

MANY = 100_000_000  # numbers that train, from which on their gradients are worth freeing: 400 MB
COOLDOWN = 0.2  # share of the steps, of the lr_schedule of that name


def param_groups(
    parameters: dict[str, nn.Parameter], rates: dict[str, float], lr: float, factors: dict[str, float] | None = None
) -> list[dict]:
    """Parameter groups of the optimizer: one for each start of a name with a rate of its own, and one for the rest.

    factors: name -> factor on its rate, as of LoRA+ (adapters/methods/low_rank/plus.py).
    """
    groups = {}
    for name, parameter in parameters.items():
        peak = next((rate for start, rate in rates.items() if name.startswith(start)), lr) * (factors or {}).get(
            name, 1
        )
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


class StepInBackward(torch.optim.AdamW):
    """AdamW that updates each parameter as soon as the backward pass has its gradient, and frees that at once.

    So gradients never exist all together: a quarter less memory where everything trains. The numbers are AdamW's. It
    sees one gradient at a time, so nothing can be accumulated or clipped. A gradient that is not finite updates
    nothing; `norm`, that of all gradients of the step, then says so.
    """

    def __init__(self, groups: list[dict], weight_decay: float):
        super().__init__(groups, weight_decay=weight_decay, fused=True)
        self.norms: list[Tensor] = []
        self.fresh = True  # no step was taken
        for group in self.param_groups:
            for parameter in group["params"]:
                one = torch.optim.AdamW([{**group, "params": [parameter]}])
                one.state = self.state  # the moments are kept in one place, for the state of the run
                parameter.register_post_accumulate_grad_hook(lambda p, one=one, group=group: self.update(p, one, group))

    @torch.no_grad()
    def update(self, parameter: nn.Parameter, one: torch.optim.AdamW, group: dict) -> None:
        """The step of one parameter, whose gradient is there."""
        self.norms.append(torch.linalg.vector_norm(parameter.grad))
        one.param_groups[0]["lr"] = group["lr"]
        if self.norms[-1].isfinite():
            one.step()
        parameter.grad = None

    def norm(self) -> float:
        """The norm of all gradients since the last call."""
        norms, self.norms = self.norms, []
        return torch.linalg.vector_norm(torch.stack(norms)).item()

    def step(self) -> None:
        """Nothing is left to do, but once to give back what was freed between the moments, which are new."""
        if self.fresh:
            release()
        self.fresh = False


def clip(model: nn.Module, optimizer: torch.optim.Optimizer, largest: float) -> float:
    """The norm of the gradients of a step, which are scaled to at most `largest`, 0 for no limit."""
    if isinstance(optimizer, StepInBackward):
        return optimizer.norm()
    trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
    return nn.utils.clip_grad_norm_(trained, largest or math.inf).item()


@torch.no_grad()
def average(parameters: dict[str, nn.Parameter], ema: dict[str, Tensor], decay: float) -> None:
    """average = decay average + (1 - decay) parameter, of all parameters by one call."""
    if ema:
        torch._foreach_lerp_(list(ema.values()), [parameters[name] for name in ema], 1 - decay)


def adamw(groups: list[dict], options: Loop) -> torch.optim.AdamW:
    """AdamW with these groups; in the backward pass where many numbers train and no setting needs their gradients."""
    numbers = sum(parameter.numel() for group in groups for parameter in group["params"])
    if numbers >= MANY and not options.clip and options.accumulate == 1:
        return StepInBackward(groups, options.weight_decay)
    return torch.optim.AdamW(groups, weight_decay=options.weight_decay, fused=True)

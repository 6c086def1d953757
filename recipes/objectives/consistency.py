"""Consistency distillation: the model learns to jump along the paths of its teacher (LCM, Luo et al. 2023).

    x_prev = one DDIM step of the guided teacher from x_t,    loss = d(f(x_t, t), f(x_prev, t_prev))

arXiv 2310.04378; as an adapter, LCM-LoRA, arXiv 2311.05556. f, d and the steps are in sampling/consistency.py. The
student is the teacher's own network with an adapter, which is off while the teacher answers, so that the weights are in
memory once. The target comes from the student too, without an average of its past, as in LCM-LoRA.

The paper draws the guidance weight w = scale - 1 from 5 to 15 for every sample and tells the network; LCM-LoRA draws it
and tells nothing, so that its student learns a mean. Here the teacher has one scale, and the student one function to
learn. The student samples without guidance, with one evaluation a step.
"""

from collections.abc import Callable
from contextlib import AbstractContextManager

from torch import Generator, Tensor, nn

from recipes.job import Batch, Loss
from sampling import Schedule, cfg, conditional, consistency_loss


def distillation(
    model: nn.Module,
    without_adapter: Callable[[], AbstractContextManager],
    schedule: Schedule,
    null: int | Tensor | None,
    guidance: float,
) -> Loss:
    """loss(batch, generator, progress) of batches of x0 (B, C, H, W) and cond, whatever the model takes for one.

    without_adapter(): a context in which the model is its teacher. null: the condition that the teacher's guidance
    leads away from; None at guidance 1.
    """

    def loss(batch: Batch, generator: Generator, progress: float) -> tuple[Tensor, dict]:
        guided = cfg(model, batch["cond"], null, guidance)

        def teacher(x: Tensor, t: Tensor) -> Tensor:
            with without_adapter():
                return guided(x, t)

        return consistency_loss(conditional(model, batch["cond"]), teacher, batch["x0"], schedule, generator)

    return loss

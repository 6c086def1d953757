"""Consistency models: one network evaluation from noise to data, and their distillation from a diffusion model.

    f(x, t) = c_skip(t) x + c_out(t) x0_hat          the same x0 for every point of a path of the probability-flow ODE
    c_skip = 0.25 / ((10 t)^2 + 0.25),    c_out = 10 t / sqrt((10 t)^2 + 0.25)

Song et al. 2023 (arXiv 2303.01469) for f and its sampler; Luo et al. 2023 (LCM, arXiv 2310.04378) for latents, with
these scalings: sigma_data = 0.5 and t the step of the chain, 0 (almost clean) to 999, times 10. So f(x, 0) = x exactly,
and from the first trained step on, t = 19, f is x0_hat but for 7e-6 of x.

It is trained, and sampled, on 50 steps of the chain: t_n = 20 (n + 1) - 1, n = 0 .. 49.
"""

from collections.abc import Callable, Sequence

import torch
from torch import Generator, Tensor

from sampling.guidance import Denoiser
from sampling.schedule import Schedule

GRID = 50  # steps of the chain that are trained
SIGMA_DATA = 0.5
HUBER = 1e-3  # where the pseudo-Huber distance turns from a square into an absolute value


def scalings(t: Tensor) -> tuple[Tensor, Tensor]:
    """(c_skip, c_out), float32. t (B,) steps of the chain -> (B,) each."""
    square = (10 * t.float()) ** 2 + SIGMA_DATA**2
    return SIGMA_DATA**2 / square, 10 * t / square.sqrt()


def consistency(out: Tensor, x: Tensor, t: Tensor, schedule: Schedule) -> Tensor:
    """f(x, t) (B,C,H,W) from the network's output (B,C or 2C,H,W) for x (B,C,H,W) at t (B,)."""
    c_skip, c_out = (c.view(-1, *[1] * (x.ndim - 1)) for c in scalings(t))
    _, x0 = schedule.eps_and_x0_at(out, x, t)
    return c_skip * x + c_out * x0


def trained_steps(schedule: Schedule) -> list[int]:
    """t_0 .. t_49, ascending, for a chain of T steps: multiples of T // 50, less 1. ValueError for T < 50 or a flow."""
    if not isinstance(schedule, Schedule):
        raise ValueError("consistency models (the sampler lcm) are made of diffusion models, and this is a flow")
    T = len(schedule.alpha_bar)
    if T < GRID:
        raise ValueError(f"{GRID} steps of the chain are trained, and it has {T}")
    stride = T // GRID
    return [stride * (n + 1) - 1 for n in range(GRID)]


def lcm_steps(schedule: Schedule, steps: int) -> list[int]:
    """`steps` of the trained ones, ascending: the noisiest, and down in equal parts. ValueError unless 1 to 50."""
    if not 1 <= steps <= GRID:
        raise ValueError(f"the sampler lcm takes 1 to {GRID} steps, which are all that are trained, found {steps}")
    return [trained_steps(schedule)[GRID - 1 - GRID * i // steps] for i in range(steps)][::-1]


def lcm(
    denoise: Denoiser,
    x: Tensor,
    schedule: Schedule,
    steps: int | Sequence[int],
    noise: Callable[[Tensor], Tensor],
    on_step: Callable[[Tensor, int], Tensor] | None = None,
) -> Tensor:
    """x_prev = alpha_prev f(x, t) + sigma_prev z                                   Song et al. 2023, algorithm 1

    The last step ends in f(x, t). The distilled model has learned its teacher's guidance: `denoise` adds none.

    x (B,C,H,W): the starting noise, float32. steps: a number (see lcm_steps), or ascending timesteps. noise(x): a
    standard normal draw of x's shape. on_step(x, t) -> the latents that the step at t begins with.
    Returns latents (B,C,H,W).
    """
    for c in schedule.chain(lcm_steps(schedule, steps) if isinstance(steps, int) else steps).backward():
        x = x if on_step is None else on_step(x, c.t)
        t = torch.full((len(x),), c.t, device=x.device)
        x = consistency(denoise(x, t), x, t, schedule)
        if c.alpha_bar_prev < 1:
            x = c.alpha_prev * x + c.sigma_prev * noise(x)
    return x


def consistency_loss(
    student: Denoiser, teacher: Denoiser, x0: Tensor, schedule: Schedule, generator: Generator
) -> tuple[Tensor, dict[str, Tensor]]:
    """mean of sqrt(d^2 + c^2) - c,   d = f(x_t, t) - f(x_prev, t_prev),   c = 0.001      LCM, sec. 4, one stage

    at random t = t_n of the trained steps, t_prev = t - 20, or 0 from the first. x_prev is one DDIM step of the
    teacher, which holds the guidance; f is the student's in both places, and the second is a constant to the gradient.
    x0 (B,C,H,W) scaled latents. Returns the scalar loss and, to log, the mean square of d.
    """
    grid = trained_steps(schedule)
    t = torch.tensor(grid)[torch.randint(GRID, (len(x0),), generator=generator)].to(x0.device)  # (B,)
    prev = (t - (grid[1] - grid[0])).clamp(min=0)
    x = schedule.add_noise(x0, torch.randn(x0.shape, generator=generator).to(x0), t)
    # The forward with a gradient comes first: under autocast, older torch reuses the weights that it cast in no_grad.
    f = consistency(student(x, t), x, t, schedule)
    with torch.no_grad():
        eps_hat, x0_hat = schedule.eps_and_x0_at(teacher(x, t), x, t)
        x_prev = schedule.add_noise(x0_hat, eps_hat, prev)
        target = consistency(student(x_prev, prev), x_prev, prev, schedule)
    square = (f - target) ** 2
    return (torch.sqrt(square + HUBER**2) - HUBER).mean(), {"mse": square.mean().detach()}

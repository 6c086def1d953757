"""Fill a mask and keep the rest, with any model: blended latents, and RePaint's way back to more noise.

After each step of the sampler, from t to s, what lies outside of the mask m becomes the good latent z again, with the
noise of s:

    x_s <- m x_s + (1 - m) (alpha_s z + sigma_s eps)                         eps: one draw for all steps

Avrahami et al. 2023 (Blended Latent Diffusion, arXiv 2206.02779); the last step ends in m x_0 + (1 - m) z.

RePaint (Lugmayr et al. 2022, arXiv 2201.09865, sec. 4.2) lets the filling fit what surrounds it: a block of steps is
gone through several times, and between two times the noise comes back,

    x_t = sqrt(alpha_bar_t / alpha_bar_s) x_s + sqrt(1 - alpha_bar_t / alpha_bar_s) n,          s the end of the block
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from torch import Tensor

from sampling.schedule import Chain, NoisePath, Schedule


@dataclass(frozen=True, eq=False)
class Resampled(Schedule):
    """A schedule whose chains go through each block of `jump` steps `times` times; counted from the clean end.

    A sampler that looks at the step before, as dpm++ does, is not for it. Raises ValueError for numbers below 1.
    """

    times: int = 1
    jump: int = 10

    def __post_init__(self):
        super().__post_init__()
        if self.times < 1 or self.jump < 1:
            raise ValueError(f"times and jump must be at least 1, found {self.times} and {self.jump}")

    def chain(self, steps: int | Sequence[int], end: float = 1.0) -> Chain:
        """The rows of Schedule.chain in the order of `visits`."""
        rows = super().chain(steps, end)
        order = visits(len(rows.t), self.times, self.jump)[::-1]  # a chain ascends, and a sampler reads it backward
        return Chain(*(field[order] for field in rows))


def visits(count: int, times: int, jump: int) -> list[int]:
    """Numbers of `count` ascending steps in the order in which they are taken: blocks of `jump`, each `times` times."""
    blocks = [[*range(first, min(first + jump, count))][::-1] for first in range(0, count, jump)]
    return [i for block in blocks[::-1] for i in block * times]


def blended(
    z: Tensor, mask: Tensor, eps: Tensor, schedule: NoisePath, steps: Sequence[float], noise: Callable[[Tensor], Tensor]
) -> Callable[[Tensor, float], Tensor]:
    """on_step(x, t) of a sampler: the module's equations, before each step but the first.

    z (B, C, H, W): the good latents. mask (B, 1, H, W): 1 where x is drawn. eps (B, C, H, W): the noise that
    the sampler begins with. steps: its timesteps, ascending, each once. noise(x): n, a standard normal draw.
    """
    ends = dict(zip(steps, [None, *steps]))  # timestep -> where its step ends, None for clean
    rows = {c.t: c for c in schedule.chain(steps).backward()}
    last = None  # timestep of the step before

    def on_step(x: Tensor, t: float) -> Tensor:
        nonlocal last
        if last is not None:
            c = rows[last]
            x = mask * x + (1 - mask) * (c.alpha_prev * z + c.sigma_prev * eps)
            if ends[last] != t:  # a block begins anew
                ratio = rows[t].alpha_bar / c.alpha_bar_prev
                x = ratio**0.5 * x + (1 - ratio) ** 0.5 * noise(x)
        last = t
        return x

    return on_step

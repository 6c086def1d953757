"""Flow matching: the straight path from data to noise, and the velocity along it.

    x_s = (1 - s) x0 + s eps,     u = d x_s / ds = eps - x0                      s = 0 (data) .. 1 (noise)

Lipman et al. 2023 (arXiv 2210.02747), Liu et al. 2023 (arXiv 2209.03003). alpha = 1 - s and sigma = s, so that x0 =
x - s u and eps = x + (1 - s) u, and DDIM's step with eta 0 is Euler's step of dx = u ds:

    alpha_prev x0 + sigma_prev eps = x + (s_prev - s) u

A network is SiT's (Ma et al. 2024, arXiv 2401.08740; github.com/willisma/SiT). It counts the other way, from noise to
data: it hears t = 1 - s, a number of 0 to 1, and its first C channels answer dx / dt = -u. The others are never read.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Generator, Tensor

from sampling.schedule import Chain, NoisePath

OBJECTIVES = ("diffusion", "flow")
DENSITIES = ("uniform", "logit-normal")


@dataclass(frozen=True)
class Flow(NoisePath):
    """The straight path, the density of the times that it is trained at, and the spacing of a sampler's steps.

        uniform        s = r,                            r of U[0, 1]: SiT
        logit-normal   s = sigmoid(mean + std n),        n of N(0, 1): Esser et al. 2024 (SD3, arXiv 2403.03206), eq. 19
        shift k        s -> k s / (1 + (k - 1) s)        ibid. eq. 23; of the training times and of the sampler's steps

    ValueError for another density, and for a std or shift that is not above 0.
    """

    density: str = "uniform"
    mean: float = 0.0
    std: float = 1.0
    shift: float = 1.0

    prediction = "flow"
    final_alpha_bar = 1.0  # a sampler ends in data
    clean = 0.0  # the time of data

    def __post_init__(self):
        if self.density not in DENSITIES:
            raise ValueError(f"density must be one of {', '.join(DENSITIES)}, found {self.density!r}")
        if not (self.std > 0 and self.shift > 0):
            raise ValueError(f"std and shift must be above 0, found {self.std} and {self.shift}")

    def told(self, t: Tensor | float) -> Tensor | float:
        """What the network hears of the time s: 1 - s, not multiplied by 1000."""
        return 1 - t

    def split(self, out: Tensor, x: Tensor) -> tuple[Tensor, None]:
        """The network's output (B,C or 2C,H,W) for x (B,C,H,W) -> (u (B,C,H,W), no variance value)."""
        return -super().split(out, x)[0], None

    def alpha_sigma(self, t: Tensor, x: Tensor) -> tuple[Tensor, Tensor]:
        """1 - s and s, each (B,1,..,1), for the times t (B,) and x (B,...)."""
        s = t.to(x.device, torch.promote_types(x.dtype, torch.float32)).view(-1, *[1] * (x.ndim - 1))
        return 1 - s, s

    def snr(self, t: Tensor) -> Tensor:
        """Signal-to-noise ratio (1 - s)^2 / s^2. t (B,) -> (B,)."""
        return ((1 - t) / t) ** 2

    def shifted(self, s: Tensor | float) -> Tensor | float:
        """k s / (1 + (k - 1) s): k > 1 moves times towards noise."""
        return self.shift * s / (1 + (self.shift - 1) * s)

    def random_times(self, count: int, generator: Generator) -> Tensor:
        """Random times to train at, (count,) float32."""
        if self.density == "uniform":
            return self.shifted(torch.rand(count, generator=generator))
        return self.shifted(torch.sigmoid(self.mean + self.std * torch.randn(count, generator=generator)))

    def timesteps(self, steps: int, first: float | None = None) -> list[float]:
        """S times, ascending to 1: at equal distances from `first`, 1/S by default, then shifted.

        Raises ValueError unless there is a step for each end.
        """
        first = 1 / steps if first is None and steps > 0 else first
        if steps < 1 or steps == 1 and first != 1:
            raise ValueError(f"the number of sampling steps must be at least {1 + (steps == 1)}, found {steps}")
        return [self.shifted(1 - i * (1 - first) / max(steps - 1, 1)) for i in range(steps)][::-1]

    def chain(self, steps: int | Sequence[float], end: float = 1.0) -> Chain:
        """The walk over `steps`: a number (see timesteps), or the times themselves, ascending.

        end: alpha^2 before the first step. Raises ValueError for an empty, unordered or out-of-range list.
        """
        s = torch.tensor(self.timesteps(steps) if isinstance(steps, int) else list(steps), dtype=torch.float64)
        if not len(s) or (s[1:] <= s[:-1]).any() or s[0] <= 0 or s[-1] > 1:
            raise ValueError(f"the times of a flow must ascend above 0 and up to 1, found {s.tolist()}")
        prev = torch.cat([s.new_tensor([1 - end**0.5]), s[:-1]])
        return Chain.of(s, (1 - s) ** 2, s**2, (1 - prev) ** 2, prev**2)

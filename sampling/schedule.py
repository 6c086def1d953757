"""A path from data to noise, the algebra between x_t, x0, eps and v on it, and the noise schedule of a diffusion chain.

    x_t = alpha x0 + sigma eps                                        DDPM (Ho 2020, arXiv 2006.11239), eq. 4
    alpha = sqrt(alpha_bar_t),   sigma = sqrt(1 - alpha_bar_t)        of a chain; of the straight path see flow.py

A network predicts eps, x0, v = alpha eps - sigma x0 (Salimans 2022, arXiv 2202.00512), or a flow's u = eps - x0.
A sampler walks a subset of the steps; that subset is a shorter chain with betas of its own (Nichol 2021,
arXiv 2102.09672, sec. 4). Tables are float64 on the CPU; they go to the data in its own precision, float32 or better.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import accumulate, repeat
from typing import NamedTuple

import torch
from torch import Generator, Tensor

PREDICTIONS = ("eps", "v", "x0")
SPACINGS = ("linspace", "leading", "trailing")


def gather(table: Tensor, t: Tensor, x: Tensor) -> Tensor:
    """table[t] on x's device, in float32 or better, shaped to multiply x. table (T,), t (B,) -> (B,1,..,1)."""
    table = table.to(torch.promote_types(x.dtype, torch.float32))
    # A blocking copy to a GPU would make the host wait for the forward pass that is still queued.
    table = table.to(x.device, non_blocking=x.is_cuda)
    return table[t].view(-1, *[1] * (x.ndim - 1))


def learned_log_variance(v: Tensor, log_beta: Tensor | float, log_posterior: Tensor | float) -> Tensor:
    """log sigma^2 = f log beta + (1 - f) log beta_tilde, f = (v + 1) / 2, v not clamped (Nichol 2021, eq. 15)."""
    f = (v + 1) / 2
    return f * log_beta + (1 - f) * log_posterior


class Chain(NamedTuple):
    """The steps of a walk along a path, and the coefficients of q(x_prev | x_t, x0) = N(mean_x0 x0 + mean_x x_t, ...).

    DDPM eq. 6 and 7, for any alpha and sigma. As made by `of` every field is (S,), float64 (t of a chain: int64), t
    ascending; the rows of backward() hold the same fields as Python numbers.
    """

    t: Tensor  # timesteps, or a flow's times
    alpha_bar: Tensor  # alpha^2
    variance: Tensor  # sigma^2
    alpha_bar_prev: Tensor  # 1 at the first step
    variance_prev: Tensor  # 0 at the first step
    alpha: Tensor
    sigma: Tensor
    alpha_prev: Tensor
    sigma_prev: Tensor
    beta: Tensor  # of q(x_t | x_prev) = N(alpha / alpha_prev x_prev, beta)
    posterior_variance: Tensor  # beta_tilde; 0 at the first step
    log_beta: Tensor
    log_posterior: Tensor  # log beta_tilde; the first step takes the second's, because log 0 is of no use
    mean_x0: Tensor
    mean_x: Tensor

    @classmethod
    def of(cls, t: Tensor, alpha_bar: Tensor, variance: Tensor, prev: Tensor, variance_prev: Tensor) -> "Chain":
        """The steps t (S,) with alpha^2 and sigma^2 of each and of the one before it, (S,) float64 each."""
        squares = (alpha_bar, variance, prev, variance_prev)
        beta = alpha_bar + variance - alpha_bar / prev * (prev + variance_prev)  # on a chain both sums are exactly 1
        posterior = beta * variance_prev / variance
        log_posterior = torch.where(posterior > 0, posterior, posterior[:2].max()).log()
        mean_x0, mean_x = prev.sqrt() * beta / variance, (alpha_bar / prev).sqrt() * variance_prev / variance
        roots = (square.sqrt() for square in squares)
        return cls(t, *squares, *roots, beta, posterior, beta.log(), log_posterior, mean_x0, mean_x)

    def backward(self) -> list["Chain"]:
        """One row of Python numbers per step, from the noisiest to the cleanest: the order of a sampler."""
        rows = zip(*(field.tolist() for field in self), strict=True)
        return [Chain(*row) for row in rows][::-1]


class NoisePath:
    """What a sampler and a loss know of a path, from alpha_sigma(t, x) and `prediction`; see Schedule, and Flow."""

    clean: float | None = None  # the time at which a network hears data without noise; None: there is none

    def told(self, t: Tensor) -> Tensor:
        """What the network hears of t (B,)."""
        return t

    def split(self, out: Tensor, x: Tensor) -> tuple[Tensor, Tensor | None]:
        """Output (B,C or 2C,H,W) for x (B,C,H,W) -> (prediction, variance value v or None), each (B,C,H,W).

        Raises ValueError at any other number of channels.
        """
        C = x.shape[1]
        if out.shape[1] not in (C, 2 * C):
            raise ValueError(
                f"the network returned {out.shape[1]} channels for latents of {C}: expected {C}, "
                f"or {2 * C} with a learned variance"
            )
        return (out, None) if out.shape[1] == C else (out[:, :C], out[:, C:])

    def add_noise(self, x0: Tensor, eps: Tensor, t: Tensor) -> Tensor:
        """x_t = alpha x0 + sigma eps (DDPM eq. 4). x0, eps, x_t (B,C,H,W), t (B,)."""
        alpha, sigma = self.alpha_sigma(t, x0)
        return alpha * x0 + sigma * eps

    def target(self, x0: Tensor, eps: Tensor, t: Tensor) -> Tensor:
        """What the network must predict: eps, x0, v = alpha eps - sigma x0, or u. x0, eps (B,C,H,W), t (B,)."""
        alpha, sigma = self.alpha_sigma(t, x0)
        return {"eps": eps, "x0": x0, "v": alpha * eps - sigma * x0, "flow": eps - x0}[self.prediction]

    def eps_and_x0(self, out: Tensor, x: Tensor, alpha: Tensor | float, sigma: Tensor | float) -> tuple[Tensor, Tensor]:
        """The eps and x0 of x = alpha x0 + sigma eps whose prediction is `out`; variance channels are ignored.

        out (B,C or 2C,H,W), x (B,C,H,W); alpha, sigma: numbers, or tensors that broadcast to x.
        """
        out, _ = self.split(out, x)
        if self.prediction == "eps":
            return out, (x - sigma * out) / alpha  # DDPM eq. 15
        if self.prediction == "x0":
            return (x - alpha * out) / sigma, out
        if self.prediction == "flow":
            return x + alpha * out, x - sigma * out  # alpha + sigma = 1
        return alpha * out + sigma * x, alpha * x - sigma * out  # alpha^2 + sigma^2 = 1

    def eps_and_x0_at(self, out: Tensor, x: Tensor, t: Tensor) -> tuple[Tensor, Tensor]:
        """eps_and_x0 at the timesteps t (B,) of the chain. out (B,C or 2C,H,W), x (B,C,H,W)."""
        return self.eps_and_x0(out, x, *self.alpha_sigma(t, x))


@dataclass(frozen=True, eq=False)
class Schedule(NoisePath):
    """alpha_bar (T,) float64, strictly falling inside (0, 1); prediction: what the network outputs, "eps", "v" or "x0".

    The last alpha_bar may be 0, pure noise (zero terminal SNR, Lin 2024, arXiv 2305.08891), unless eps is predicted,
    which says nothing of x0 there.

    The other fields are for samplers, and a published Stable Diffusion comes with its own: the spacing of the steps,
    and the alpha_bar at which DDIM's last step ends, 1 for clean data or alpha_bar_0 as in Stable Diffusion.
    Raises ValueError for another dtype, shape, range, prediction or spacing.
    """

    alpha_bar: Tensor
    prediction: str = "eps"
    spacing: str = "linspace"  # see timesteps()
    offset: int = 0  # added to each step of the spacing "leading"
    final_alpha_bar: float = 1.0

    def __post_init__(self):
        a = self.alpha_bar
        if self.prediction not in PREDICTIONS:
            raise ValueError(f"prediction must be one of {', '.join(PREDICTIONS)}, found {self.prediction!r}")
        if self.spacing not in SPACINGS or self.offset < 0:
            raise ValueError(
                f"spacing must be one of {', '.join(SPACINGS)} and offset at least 0, found "
                f"{self.spacing!r} and {self.offset}"
            )
        if a.dtype != torch.float64 or a.ndim != 1 or not len(a):
            raise ValueError(f"alpha_bar must be float64 of shape (T,), found {a.dtype} of shape {tuple(a.shape)}")
        ends = 0 < a[-1] or a[-1] == 0 and self.prediction != "eps"
        if not (ends and a[0] < 1 and (a[1:] < a[:-1]).all()):
            raise ValueError(
                f"alpha_bar must fall strictly and stay between 0 and 1: it starts at {a[0]:g} and ends at {a[-1]:g}"
            )

    @classmethod
    def from_betas(cls, betas: Tensor, prediction: str = "eps") -> "Schedule":
        """alpha_bar_t = prod_{s <= t} (1 - beta_s). betas (T,) float64."""
        return cls(torch.cumprod(1 - betas, 0), prediction)

    @classmethod
    def linear(
        cls, T: int = 1000, beta_start: float = 1e-4, beta_end: float = 0.02, prediction: str = "eps"
    ) -> "Schedule":
        """Betas on a line (Ho 2020, sec. 4): DDPM, DiT."""
        return cls.from_betas(torch.linspace(beta_start, beta_end, T, dtype=torch.float64), prediction)

    @classmethod
    def scaled_linear(
        cls, T: int = 1000, beta_start: float = 0.00085, beta_end: float = 0.012, prediction: str = "eps"
    ) -> "Schedule":
        """Square roots of the betas on a line (Rombach 2022, arXiv 2112.10752): Stable Diffusion."""
        roots = torch.linspace(beta_start**0.5, beta_end**0.5, T, dtype=torch.float64)
        return cls.from_betas(roots**2, prediction)

    @classmethod
    def cosine(cls, T: int = 1000, s: float = 0.008, max_beta: float = 0.999, prediction: str = "eps") -> "Schedule":
        """alpha_bar_t = f(t) / f(0), f(t) = cos^2((t/T + s) / (1 + s) pi/2), betas capped (Nichol 2021, eq. 17)."""
        f = torch.cos((torch.arange(T + 1, dtype=torch.float64) / T + s) / (1 + s) * math.pi / 2) ** 2
        return cls.from_betas((1 - f[1:] / f[:-1]).clamp(max=max_beta), prediction)

    def alpha_sigma(self, t: Tensor, x: Tensor) -> tuple[Tensor, Tensor]:
        """alpha = sqrt(alpha_bar_t), sigma = sqrt(1 - alpha_bar_t), each (B,1,..,1). t (B,), x (B,...).

        The roots are taken in float64.
        """
        return gather(self.alpha_bar.sqrt(), t, x), gather((1 - self.alpha_bar).sqrt(), t, x)

    def snr(self, t: Tensor) -> Tensor:
        """Signal-to-noise ratio alpha_bar_t / (1 - alpha_bar_t), float32. t (B,) -> (B,)."""
        return gather(self.alpha_bar / (1 - self.alpha_bar), t, torch.empty(len(t), device=t.device))

    def random_times(self, count: int, generator: Generator) -> Tensor:
        """Random steps to train at, (count,)."""
        return torch.randint(len(self.alpha_bar), (count,), generator=generator)

    def timesteps(self, steps: int) -> list[int]:
        """S steps out of T, ascending, with the names of Lin 2024 (arXiv 2305.08891, table 2).

        linspace    multiples of (T-1)/(S-1), rounded half to even, from 0 to T-1: DiT's respacing
        leading     offset + multiples of T // S, from offset: Stable Diffusion, with offset 1
        trailing    T-1, and down in strides of T/S

        The stride of linspace is summed up, not multiplied, because that decides which way some halves fall.
        Raises ValueError unless 2 <= steps <= T, or if the offset leads beyond T-1.
        """
        T = len(self.alpha_bar)
        if not 2 <= steps <= T:
            raise ValueError(f"the number of sampling steps must be between 2 and {T}, found {steps}")
        if self.spacing == "trailing":
            return [round(T - i * T / steps) - 1 for i in range(steps)][::-1]
        if self.spacing == "leading":
            last = self.offset + T // steps * (steps - 1)
            if last >= T:
                raise ValueError(f"{steps} steps with offset {self.offset} would end at {last}, beyond {T - 1}")
            return list(range(self.offset, last + 1, T // steps))
        return [round(t) for t in accumulate(repeat((T - 1) / (steps - 1), steps - 1), initial=0.0)]

    def chain(self, steps: int | Sequence[int], end: float = 1.0) -> Chain:
        """The subchain of `steps`: a number (see timesteps), or the timesteps themselves, ascending.

        end: alpha_bar before the first step.

        Raises ValueError for an empty, unordered or out-of-range list.
        """
        T = len(self.alpha_bar)
        t = torch.tensor(self.timesteps(steps) if isinstance(steps, int) else list(steps), dtype=torch.long)
        if not len(t) or (t[1:] <= t[:-1]).any() or t[0] < 0 or t[-1] >= T:
            raise ValueError(f"timesteps must ascend within 0..{T - 1}, found {t.tolist()}")
        alpha_bar = self.alpha_bar[t]
        prev = torch.cat([alpha_bar.new_tensor([end]), alpha_bar[:-1]])
        return Chain.of(t, alpha_bar, 1 - alpha_bar, prev, 1 - prev)

    @cached_property
    def full(self) -> Chain:
        """The chain of all T steps, which training uses."""
        return self.chain(range(len(self.alpha_bar)))

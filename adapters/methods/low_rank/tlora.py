"""T-LoRA: a low-rank path whose rank shrinks as the noise grows (Soboleva et al. 2025, AAAI 2026, arXiv 2507.05964).

    y = W x + b + (B S M_t A - B_0 S_0 M_t A_0) x        A (r, in), S (r,) a diagonal, B (out, r)
    M_t = diag(1, .., 1, 0, .., 0) with r(t) ones,       r(t) = floor((r - r_min) (T - t) / T) + r_min

          x (..., in)
          |---------------------.
    W, b frozen              A tlora_down (r, in)            t (B,)
          |                  S tlora_values (r,) -- M_t <------'
          |                  B tlora_up (out, r)
          |<-- minus the same --'
          |    of the start
          y (..., out)

Few images are overfitted at the noisy steps, where a composition is chosen: there few ranks act. The last ones learn
from little noise alone, details. A and B start orthogonal, so that a mask leaves out what no other rank holds: as
singular vectors of a Gaussian matrix, S as its *last* singular values, which overfit least. Such vectors are uniform
and independent of the values, so that each frame is drawn for itself, by a QR. The start A_0, S_0, B_0 is kept and
subtracted, and step 0 is exact.

Each sample of a batch has the rank of its own t, which a clock tells (adapters/clock.py); T is 1000, and a flow has its
share of the data, 1 - s, in the place of (T - t) / T. No weights hold a path that depends on t: it stays on its layers.
"""

import torch
import torch.nn.functional as F
from torch import nn

from adapters.clock import Clock, clock_of, embedders
from adapters.core import match, specialize
from adapters.methods.low_rank.lora import ATTENTION

STEPS = 1000  # T


class TLoRA:
    """y = W x + b + (B S M_t A - B_0 S_0 M_t A_0) x, over a Linear. It does not merge."""

    kept = ("tlora_start_down", "tlora_start_values", "tlora_start_up")
    added, through_super = ("tlora_down", "tlora_values", "tlora_up", *kept, "tlora_least", "clock"), True

    def setup(self, start: tuple[torch.Tensor, torch.Tensor, torch.Tensor], least: int, clock: Clock) -> None:
        """start: A (r, in), S (r,) and B (out, r). least: r_min."""
        for name, tensor in zip(("down", "values", "up"), start):
            begun = tensor.to(self.weight)
            self.register_parameter(f"tlora_{name}", nn.Parameter(begun.clone()))
            self.register_buffer(f"tlora_start_{name}", begun.clone())
        self.tlora_least, self.clock = least, clock

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """x (B, ..., in) -> (B, ..., out)."""
        mask = self.tlora_mask(x)
        new = masked(x, mask, self.tlora_down, self.tlora_values, self.tlora_up)
        start = masked(x, mask, self.tlora_start_down, self.tlora_start_values, self.tlora_start_up)
        return super().forward(x) + (new - start)  # exactly 0 at the start, before it is added

    def tlora_mask(self, x: torch.Tensor) -> torch.Tensor:
        """The diagonal of M_t for each sample, (B, 1, ..., 1, r) for x (B, ..., in)."""
        t, rank = self.clock.times(), len(self.tlora_values)
        if len(t) != len(x):
            raise ValueError(f"expected an input for each of {len(t)} timesteps, found {len(x)}")
        left, of = (t.float(), 1) if self.clock.flow else (STEPS - t.float(), STEPS)  # T - t, T
        ranks = torch.floor((rank - self.tlora_least) * left / of) + self.tlora_least  # r(t) (B,)
        ones = torch.arange(rank, device=t.device) < ranks[:, None]  # (B, r)
        return ones.view(len(t), *(1 for _ in x.shape[1:-1]), rank).to(self.tlora_values.dtype)

    def extra_repr(self) -> str:
        """The layer's own text with the largest and the smallest rank, as print(model) shows it."""
        return f"{super().extra_repr()}, rank={len(self.tlora_values)}, least={self.tlora_least}"


def tlora(
    model: nn.Module,
    generator: torch.Generator | None,
    *,
    rank: int = 4,
    least: int | None = None,
    targets: str = ATTENTION,
) -> None:
    """On every Linear whose dotted name the regex `targets` finds in a network that hears a timestep: a DiT, a UNet.

    least: r_min, None for half of the rank, the paper's choice. Raises ValueError for ranks out of range, a layer that
    is narrower than the rank, and where no such layer hears a timestep, as in a text encoder.
    """
    least = (rank + 1) // 2 if least is None else least
    if rank < 1 or not 0 <= least <= rank:
        raise ValueError(f"needs rank >= 1 and a least rank of 0 to it, found rank {rank}, least {least}")
    hearing = embedders(model)
    layers = [
        (name, layer, start)
        for name, layer in match(model, targets, nn.Linear)
        if (start := next((start for start in hearing if name.startswith(start)), None)) is not None
    ]
    if not layers:
        raise ValueError(f"its rank follows the noise: no layer that {targets!r} finds is in a network with timesteps")
    for name, layer, _ in layers:
        if rank > min(layer.weight.shape):
            raise ValueError(f"cannot adapt {name}: rank {rank} for a weight of {tuple(layer.weight.shape)}")
    flow, values = getattr(model, "objective", "diffusion") == "flow", {}
    for _, layer, start in layers:
        shape = tuple(layer.weight.shape)
        if shape not in values:  # of large matrices they are the same to a percent: computed once for a shape
            values[shape] = last_values(shape, rank, generator)
        down, up = frame(shape[1], rank, generator).mT, frame(shape[0], rank, generator)
        specialize(layer, TLoRA, start=(down, values[shape], up), least=least, clock=clock_of(hearing[start], flow))


def masked(
    x: torch.Tensor, mask: torch.Tensor, down: torch.Tensor, values: torch.Tensor, up: torch.Tensor
) -> torch.Tensor:
    """B S M_t A x: x (B, ..., in), mask (B, ..., r) -> (B, ..., out)."""
    return F.linear(F.linear(x, down) * (values * mask).to(x.dtype), up)


def frame(width: int, rank: int, generator: torch.Generator | None) -> torch.Tensor:
    """(width, rank) orthonormal columns, uniform among all: Q of a Gaussian matrix, with R's diagonal positive."""
    q, r = torch.linalg.qr(gaussian((width, rank), generator))
    return q * r.diagonal().sign()


def last_values(shape: tuple[int, int], rank: int, generator: torch.Generator | None) -> torch.Tensor:
    """(rank,) the smallest singular values of a matrix of that shape with entries N(0, 1/rank^2), descending."""
    return torch.linalg.svdvals(gaussian(shape, generator) / rank)[-rank:]


def gaussian(shape: tuple[int, int], generator: torch.Generator | None) -> torch.Tensor:
    """N(0, 1), in float32 on the generator's device: one seed gives one adapter on every device and dtype."""
    return torch.randn(shape, generator=generator, device=generator.device if generator else "cpu")

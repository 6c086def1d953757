"""Draw latents for a list of conditions: batches, guidance, and noise that belongs to the sample, not to the batch."""
from collections.abc import Callable, Sequence

import numpy as np
import torch
from torch import Tensor

from sampling.ddim import ddim
from sampling.ddpm import ddpm
from sampling.dpm import dpm
from sampling.guidance import bind, cfg, like
from sampling.schedule import Schedule

SAMPLERS = {"ddpm": ddpm, "ddim": ddim, "dpm++": dpm}     # each: (denoise, x, schedule, steps, noise) -> latents


def sample_noise(seed: int, indices: Sequence[int]) -> Callable[[Tensor], Tensor]:
    """noise(x): a standard normal draw of x's shape (B,...), row b from its own generator, keyed (seed, indices[b]).

    Drawn in float32 on the CPU, so that a sample does not depend on the device, the batch size or its neighbours.
    """
    keys = [np.random.SeedSequence([seed, i]).generate_state(1, np.uint64)[0] for i in indices]
    generators = [torch.Generator().manual_seed(int(key)) for key in keys]
    return lambda x: torch.stack([torch.randn(x.shape[1:], generator=g) for g in generators]).to(x)


@torch.no_grad()
def draw(model: Callable, shape: Sequence[int], cond: Tensor, null: int | Tensor | None, schedule: Schedule,
         sampler: str | Callable = "ddim", steps: int | Sequence[int] = 50, guidance: float = 4.0,
         channels: int | None = None, seed: int = 0, batch: int = 16, first: int = 0) -> Tensor:
    """One latent of `shape` (C,H,W) per condition -> (N,C,H,W) float32 on cond's device.

    model(x, t, cond); cond (N,) labels or (N,L,D) text states; null as in cfg, unused at guidance 1 (no doubled batch).
    sampler: a name in SAMPLERS, or a function called like them, such as partial(ddim, eta=1.0).
    Sample i has the noise of (seed, first + i), so a long list may be drawn in parts, on several devices, in any batch.
    Raises ValueError for an unknown sampler, or guidance without null.
    """
    if not callable(sampler) and sampler not in SAMPLERS:
        raise ValueError(f"sampler must be one of {', '.join(SAMPLERS)}: got {sampler!r}")
    if guidance != 1 and null is None:
        raise ValueError(f"guidance {guidance} needs a null condition; without one use guidance 1")
    if batch < 1:
        raise ValueError(f"the batch must hold at least 1 sample: got {batch}")
    run = sampler if callable(sampler) else SAMPLERS[sampler]
    away = None if guidance == 1 else like(null, cond)
    latents = [torch.empty((0, *shape), device=cond.device)]
    for start in range(0, len(cond), batch):
        here = slice(start, start + batch)
        y = cond[here]
        denoise = bind(model, y) if guidance == 1 else cfg(model, y, away[here], guidance, channels)
        noise = sample_noise(seed, range(first + start, first + start + len(y)))
        x = noise(torch.empty((len(y), *shape), device=cond.device))     # (B, C, H, W)
        latents.append(run(denoise, x, schedule, steps, noise))
    return torch.cat(latents)

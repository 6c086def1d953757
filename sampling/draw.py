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
         channels: int | None = None, seed: int = 0, batch: int = 16, first: int = 0, image: Tensor | None = None,
         strength: float = 0.8) -> Tensor:
    """One latent of `shape` (C,H,W) per condition -> (N,C,H,W) float32 on cond's device.

    model(x, t, cond); cond (N,) labels or (N,L,D) text states; null as in cfg, unused at guidance 1 (no doubled batch).
    sampler: a name in SAMPLERS, or a function called like them, such as partial(ddim, eta=1.0).
    Sample i has the noise of (seed, first + i), so a long list may be drawn in parts, on several devices, in any batch.
    image (C,H,W): a latent to start from, noised to the step that `strength` of the way from clean to noise is at
    (SDEdit, Meng 2022, arXiv 2108.01073); strength 1 is none of the image, and without one all starts from noise.
    Raises ValueError for an unknown sampler, guidance without null, or a strength that leaves no step.
    """
    if not callable(sampler) and sampler not in SAMPLERS:
        raise ValueError(f"sampler must be one of {', '.join(SAMPLERS)}: got {sampler!r}")
    if guidance != 1 and null is None:
        raise ValueError(f"guidance {guidance} needs a null condition; without one use guidance 1")
    if batch < 1:
        raise ValueError(f"the batch must hold at least 1 sample: got {batch}")
    run = sampler if callable(sampler) else SAMPLERS[sampler]
    if image is not None:
        steps = begun(schedule.timesteps(steps) if isinstance(steps, int) else list(steps), strength)
    away = None if guidance == 1 else like(null, cond)
    latents = [torch.empty((0, *shape), device=cond.device)]
    for start in range(0, len(cond), batch):
        here = slice(start, start + batch)
        y = cond[here]
        denoise = bind(model, y) if guidance == 1 else cfg(model, y, away[here], guidance, channels)
        noise = sample_noise(seed, range(first + start, first + start + len(y)))
        x = noise(torch.empty((len(y), *shape), device=cond.device))     # (B, C, H, W)
        if image is not None:
            x = schedule.add_noise(image.expand_as(x), x, torch.full((len(x),), steps[-1], device=x.device))
        latents.append(run(denoise, x, schedule, steps, noise))
    return torch.cat(latents)


def begun(steps: list[int], strength: float) -> list[int]:
    """The first int(S strength) of S ascending steps. ValueError if that is none of them, or strength exceeds 1."""
    count = int(len(steps) * strength)
    if not 0 < count <= len(steps):
        raise ValueError(f"strength {strength} leaves {count} of {len(steps)} steps: it must be above 0 and at most 1")
    return steps[:count]

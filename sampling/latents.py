"""Sample latents in batches. The noise of a sample depends on its own number, not on the batch."""

from collections.abc import Callable, Sequence

import numpy as np
import torch
from torch import Tensor

from sampling.consistency import lcm, lcm_steps
from sampling.guidance import Denoiser
from sampling.samplers.ddim import ddim
from sampling.samplers.ddpm import ddpm
from sampling.samplers.dpm import dpm
from sampling.samplers.heun import heun
from sampling.samplers.sde import sde, sde_steps
from sampling.schedule import NoisePath

# each: (denoise, x, schedule, steps, noise, on_step=) -> latents
SAMPLERS = {"ddpm": ddpm, "ddim": ddim, "dpm++": dpm, "heun": heun, "sde": sde, "lcm": lcm}
OWN_STEPS = {lcm: lcm_steps, sde: sde_steps}  # of samplers that do not visit schedule.timesteps


def sample_noise(seed: int | Sequence[Sequence[int]], indices: Sequence[int]) -> Callable[[Tensor], Tensor]:
    """noise(x): normal numbers of x's shape (B,...), row b of a generator for seed[i] or (seed, i), i indices[b].

    They are float32 from the CPU, so that a sample does not depend on the device, the batch size or its neighbours.
    """
    seeds = [(seed, i) if isinstance(seed, int) else seed[i] for i in indices]
    keys = [np.random.SeedSequence(entropy).generate_state(1, np.uint64)[0] for entropy in seeds]
    generators = [torch.Generator().manual_seed(int(key)) for key in keys]
    return lambda x: torch.stack([torch.randn(x.shape[1:], generator=g) for g in generators]).to(x)


@torch.no_grad()
def sample_latents(
    denoiser: Callable[[slice], Denoiser],
    numbers: range,
    shape: Sequence[int],
    schedule: NoisePath,
    sampler: str | Callable = "ddim",
    steps: int | Sequence[float] = 50,
    seed: int | Sequence[Sequence[int]] = 0,
    batch: int = 16,
    image: Tensor | None = None,
    strength: float = 0.8,
    device: torch.device | str = "cpu",
    on_step: Callable[[slice], Callable[[Tensor, int], Tensor]] | None = None,
) -> Tensor:
    """One latent of `shape` (C,H,W) for each of `numbers`, a range of step 1 -> (N,C,H,W) float32 on the device.

    denoiser(here): the denoiser of the samples numbered `here`; batched_cfg() makes one for a list of conditions.
    sampler: a name in SAMPLERS, or a function with their arguments, such as partial(ddim, eta=1.0).
    Sample i has the noise of (seed, i), or of seed[i], so a long list may be sampled in parts, in any batch.
    image (C,H,W), or one of each sample (N,C,H,W): a latent to start from, noised to the timestep at `strength` of the
    way from clean to noise (SDEdit, Meng 2022, arXiv 2108.01073); strength 1 keeps none of it. Without one every sample
    starts from noise.
    on_step(here): the function on_step(x, t) of the samples numbered `here`, called before each step (unet/attend.py).
    Raises ValueError for an unknown sampler, a batch below 1, or a strength that leaves no step.
    """
    if not callable(sampler) and sampler not in SAMPLERS:
        raise ValueError(f"sampler must be one of {', '.join(SAMPLERS)}, found {sampler!r}")
    if batch < 1:
        raise ValueError(f"the batch must hold at least 1 sample, found {batch}")
    run = sampler if callable(sampler) else SAMPLERS[sampler]
    if image is not None:
        steps = cleanest(timesteps_of(run, schedule, steps) if isinstance(steps, int) else list(steps), strength)
    latents = [torch.empty((0, *shape), device=device)]
    for start in range(numbers.start, numbers.stop, batch):
        here = slice(start, min(start + batch, numbers.stop))
        noise = sample_noise(seed, range(here.start, here.stop))
        x = noise(torch.empty((here.stop - here.start, *shape), device=device))  # (B, C, H, W)
        if image is not None:
            z = image if image.ndim == 3 else image[here]
            x = schedule.add_noise(z.expand_as(x), x, torch.full((len(x),), steps[-1], device=x.device))
        change = None if on_step is None else on_step(here)
        latents.append(run(denoiser(here), x, schedule, steps, noise, on_step=change))
    return torch.cat(latents)


def timesteps_of(sampler: str | Callable, schedule: NoisePath, steps: int) -> list[float]:
    """The ascending timesteps of the schedule that a sampler of so many steps visits."""
    return OWN_STEPS.get(SAMPLERS.get(sampler, sampler), type(schedule).timesteps)(schedule, steps)


def cleanest(steps: list[float], strength: float) -> list[float]:
    """The first int(S strength) of S ascending steps. ValueError if that is none of them, or strength exceeds 1."""
    count = int(len(steps) * strength)
    if not 0 < count <= len(steps):
        raise ValueError(f"strength {strength} leaves {count} of {len(steps)} steps: it must be above 0 and at most 1")
    return steps[:count]

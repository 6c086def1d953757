"""Noise schedules, guidance, samplers and the training loss.

A path is a diffusion chain (schedule.py) or the straight one of a flow (flow.py). A denoiser is denoise(x, t) -> out
with everything else bound (guidance.py). A sampler is one function of a denoiser with one loop (samplers/, and
lcm in consistency.py). sample_latents() runs one over a list of samples.
"""

import warnings

from sampling.consistency import consistency_loss, lcm
from sampling.fill import Resampled, blended
from sampling.flow import Flow
from sampling.guidance import batched_cfg, cfg, composed, conditional, limited_interval, superclass_cfg, two_stage
from sampling.huber import Huber
from sampling.latents import SAMPLERS, cleanest, sample_latents, sample_noise, timesteps_of
from sampling.loss import diffusion_loss
from sampling.progressive import dit_schedule
from sampling.samplers.ddim import ddim
from sampling.samplers.ddpm import ddpm
from sampling.samplers.dpm import dpm
from sampling.samplers.heun import heun
from sampling.samplers.sde import sde
from sampling.schedule import NoisePath, Schedule
from sampling.seeds import sample_seeds

__all__ = [
    "SAMPLERS",
    "Flow",
    "Huber",
    "NoisePath",
    "Resampled",
    "Schedule",
    "batched_cfg",
    "blended",
    "cfg",
    "cleanest",
    "composed",
    "conditional",
    "consistency_loss",
    "ddim",
    "ddpm",
    "diffusion_loss",
    "dit_schedule",
    "dpm",
    "heun",
    "lcm",
    "limited_interval",
    "sample_latents",
    "sample_noise",
    "sample_seeds",
    "sde",
    "superclass_cfg",
    "timesteps_of",
    "two_stage",
]


RENAMED = {
    "draw": "sample_latents",
    "guided": "batched_cfg",
    "bind": "conditional",
    "within": "limited_interval",
    "steps_of": "timesteps_of",
}  # old names, kept for one release


def __getattr__(name: str) -> object:
    if name not in RENAMED:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    warnings.warn(f"{__name__}.{name} is called {__name__}.{RENAMED[name]} now", FutureWarning, stacklevel=2)
    return globals()[RENAMED[name]]

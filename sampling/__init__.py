"""Noise schedules, guidance, samplers and the training loss.

A denoiser is denoise(x, t) -> out with everything else bound (guidance.py makes them); a sampler is one function of a
denoiser with one loop (ddpm.py, ddim.py, dpm.py, lcm in consistency.py); draw() runs a sampler over a list of samples.
"""

from sampling.consistency import consistency_loss, lcm
from sampling.ddim import ddim
from sampling.ddpm import ddpm
from sampling.dpm import dpm
from sampling.draw import SAMPLERS, draw, sample_noise, steps_of
from sampling.guidance import bind, cfg, guided, within
from sampling.loss import diffusion_loss
from sampling.progressive import dit_schedule
from sampling.schedule import Schedule

__all__ = [
    "SAMPLERS",
    "Schedule",
    "bind",
    "cfg",
    "consistency_loss",
    "ddim",
    "ddpm",
    "diffusion_loss",
    "dit_schedule",
    "dpm",
    "draw",
    "guided",
    "lcm",
    "sample_noise",
    "steps_of",
    "within",
]

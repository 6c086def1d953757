"""Noise schedules, guidance, samplers and the training loss.

A denoiser is denoise(x, t) -> out with everything else bound (guidance.py makes them); a sampler is one function of a
denoiser with one loop (ddpm.py, ddim.py, dpm.py); draw() runs a sampler over a list of conditions.
"""
from sampling.ddim import ddim
from sampling.ddpm import ddpm
from sampling.dpm import dpm
from sampling.draw import SAMPLERS, draw, sample_noise
from sampling.guidance import bind, cfg
from sampling.loss import diffusion_loss
from sampling.schedule import Schedule

__all__ = ["SAMPLERS", "Schedule", "bind", "cfg", "ddim", "ddpm", "diffusion_loss", "dpm", "draw", "sample_noise"]

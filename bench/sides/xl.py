"""This package's side of the rows of Stable Diffusion XL: its UNet, and texts as random rows (unet/row.py)."""

from collections.abc import Callable
from dataclasses import replace

import torch
from torch import Tensor

import weights
from bench.sides.ours import trained
from bench.sides.random import filled
from ops.device import Compute
from recipes.models.store import for_sampling
from sampling import batched_cfg, ddim
from unet import UNet
from unet.row import SIZE_NUMBERS
from unet.sizes import UNETS


def new_unet(size: dict) -> UNet:
    """XL's UNet with random weights."""
    with torch.device("meta"):
        model = UNet(replace(UNETS["SDXL"], **size["xl"], input_size=size["xl_side"] // 8))
    return filled(model)


def texts(size: dict, model: UNet, count: int) -> Tensor:
    """Rows (B, 77 D + P + 6): states, pooled text, and the sizes of an image that nothing was cut from."""
    side, config = size["xl_side"], model.config
    sizes = torch.tensor([side, side, 0, 0, side, side], dtype=torch.float32).expand(count, SIZE_NUMBERS)
    return torch.cat([torch.randn(count, 77 * config.text_width + config.pooled), sizes], dim=1)


def guided(size: dict, device: str) -> Callable:
    """One guided step of DDIM for one image: the UNet on two texts at once."""
    compute, model = Compute(torch.device(device), "bf16"), new_unet(size)
    for_sampling(model, compute)
    cond, null = texts(size, model, 2).to(compute.device).split(1)
    denoiser, schedule = batched_cfg(model, cond, null, 5.0), weights.sd_schedule()
    x = torch.randn(1, *model.latent_shape, device=compute.device)

    @torch.no_grad()
    def step() -> None:
        with compute.autocast():
            ddim(denoiser(slice(0, 1)), x, schedule, [500])

    return step


def lora(size: dict, device: str) -> Callable:
    """LoRA of rank 8 on the attention of the UNet, one image; latents and texts were encoded before."""
    model = new_unet(size)
    return trained(model, ["lora:rank=8"], texts(size, model, 1), device)

"""Stable Diffusion XL at full size: `python -m bench.full_size_xl [sample] [train] [--side 1024] [--tiny]`.

The UNet alone with random weights in bfloat16, all 2,567,463,684 of them, and text states as the encoders would make
them: one guided DDIM step, and one LoRA step with AdamW, at so many pixels a side. Nothing is read or written; the
seconds and the peak of the process are printed. The weights stay bfloat16, which train.py and sample.py do not do.
"""

import argparse
import resource
import time

import torch
from torch import Tensor

import adapters
import weights
from bench.child import MAXRSS
from sampling import batched_cfg, diffusion_loss, sample_latents
from unet import UNet, UNetConfig
from unet.row import SIZE_NUMBERS
from unet.sizes import UNETS

TINY = UNetConfig(
    channels=(32, 64), text=(0, 1), heads=(2, 2), text_width=24, pooled=8, linear=True, groups=8, input_size=8
)
RANK = 8
FACTOR, LENGTH = 8, 77  # pixels a latent's cell; tokens of a text


def random_unet(config: UNetConfig) -> UNet:
    """A UNet of this shape with normal weights in bfloat16, made in place of float32 ones that would not fit."""
    with torch.device("meta"):
        unet = UNet(config)
    unet = unet.to(torch.bfloat16).to_empty(device="cpu").eval().requires_grad_(False)
    generator = torch.Generator().manual_seed(0)
    for name, parameter in unet.named_parameters():
        scale = parameter[0].numel() ** -0.5 if parameter.dim() > 1 else 0.02
        parameter.normal_(std=scale, generator=generator)
        if "norm" in name and name.endswith("weight"):
            parameter.add_(1)
    return unet


def rows(config: UNetConfig, count: int, side: int) -> Tensor:
    """`count` texts as rows of random states and pooled text, of an image of `side` pixels."""
    text = torch.randn(count, LENGTH * config.text_width + config.pooled, generator=torch.Generator().manual_seed(1))
    sizes = torch.tensor([side, side, 0, 0, side, side], dtype=torch.float32)
    return torch.cat([text, sizes.expand(count, SIZE_NUMBERS)], dim=1)


def guided_step(unet: UNet, side: int) -> None:
    """One step of DDIM for one image, two texts at once: the first of two, the second is stopped before it begins."""
    cond, done = rows(unet.config, 2, side), []
    denoiser = batched_cfg(lambda x, t, c: unet(x.bfloat16(), t, c).float(), cond[:1], cond[1:], 5.0)

    def once(here: slice):
        def denoise(x: Tensor, t: Tensor) -> Tensor:
            done.append(None)
            return denoiser(here)(x, t) if len(done) == 1 else torch.zeros_like(x)

        return denoise

    shape = (unet.config.out_channels, side // FACTOR, side // FACTOR)
    z = sample_latents(once, range(1), shape, weights.sd_schedule(), "ddim", 2)
    assert z.isfinite().all()


def lora_step(unet: UNet, side: int) -> None:
    """Forward, backward and AdamW for one image, LoRA of rank 8 on every attention, in bfloat16 as the rest."""
    adapters.attach(unet, f"lora:rank={RANK}")
    trained = [p.data for p in unet.parameters() if p.requires_grad]
    optimizer = torch.optim.AdamW([p for p in unet.parameters() if p.requires_grad], lr=1e-4)
    schedule, generator = weights.sd_schedule(), torch.Generator().manual_seed(2)
    shape = (1, unet.config.out_channels, side // FACTOR, side // FACTOR)
    x0, eps = (torch.randn(shape, generator=generator) for _ in range(2))
    t = torch.tensor([500])
    x_t = schedule.add_noise(x0, eps, t)
    out = unet(x_t.bfloat16(), t, rows(unet.config, 1, side)).float()
    loss, _ = diffusion_loss(out, x0, eps, x_t, t, schedule)
    loss.backward()
    optimizer.step()
    print(f"{sum(p.numel() for p in trained):,} numbers trained, loss {loss.item():.3f}")


STEPS = {"sample": guided_step, "train": lora_step}


def main(arguments: list[str] | None = None) -> None:
    """Prints a line for each step: what, seconds, peak memory of the process so far."""
    parser = argparse.ArgumentParser(prog="python -m bench.full_size_xl", description=__doc__.partition("\n")[0])
    parser.add_argument("steps", nargs="*", help=f"of {', '.join(STEPS)}; none: all")
    parser.add_argument("--side", type=int, default=1024, help="of the image, in pixels")
    parser.add_argument("--tiny", action="store_true", help="a small UNet of the same parts")
    given = parser.parse_args(arguments)
    config = TINY if given.tiny else UNETS["SDXL"]
    if unknown := set(given.steps) - set(STEPS):
        parser.error(f"steps are {', '.join(STEPS)}, found {', '.join(sorted(unknown))}")
    if given.side % (FACTOR << len(config.channels) - 1):
        parser.error(f"--side must be a multiple of {FACTOR << len(config.channels) - 1}, found {given.side}")
    began = time.perf_counter()
    unet = random_unet(config)
    report(f"UNet, {sum(p.numel() for p in unet.parameters()):,} random values in bfloat16", began)
    for name in given.steps or STEPS:
        began = time.perf_counter()
        STEPS[name](unet, given.side)
        report(f"one {'guided DDIM' if name == 'sample' else 'LoRA'} step at {given.side} pixels", began)


def report(what: str, began: float) -> None:
    """Seconds since then, those of the processor and the peak of this process so far, and the threads."""
    used, seconds = resource.getrusage(resource.RUSAGE_SELF), time.perf_counter() - began
    peak, processor = used.ru_maxrss * MAXRSS, used.ru_utime + used.ru_stime
    words = f"{seconds:.1f} s, so far {processor:.0f} s of the processor, peak {peak:.2f} GiB"
    print(f"{what}: {words}, {torch.get_num_threads()} threads", flush=True)


if __name__ == "__main__":
    main()

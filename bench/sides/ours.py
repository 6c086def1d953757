"""This package's side of the rows: each function builds what a row needs and returns its step."""

import tempfile
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import torch
from torch import Tensor, nn

import adapters
import train
import weights
from bench.sides.random import filled
from bench.timing.worker import peak
from config.training import Blocks, Loop, Run
from data.transforms import to_uint8
from dit import SIZES, DiT
from dit.table import tabulate
from ops.device import Compute
from recipes.job import Job
from recipes.models.store import for_sampling, for_training
from recipes.objectives.denoise import denoising
from sampling import Schedule, batched_cfg, sample_latents
from unet import VAE, TextConditioned, TextEncoder, Tokenizer, UNet, VAEConfig
from unet.sizes import TEXT_ENCODERS, UNETS

BITFIT, LORA = ["bitfit"], [r"lora:rank=8,targets=attn\.(qkv|proj)$"]


def new_dit(size: dict) -> DiT:
    """A DiT of this size, every weight N(0, 0.02), those that start at zero too."""
    shape = SIZES[size["model"]] | {"depth": size["depth"]}
    with torch.device("meta"):
        model = DiT.from_name(size["model"], image_size=size["side"] // 2, depth=shape["depth"])
    return filled(model)


def inputs(model: nn.Module, cond: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """x, t and cond of one call."""
    x = torch.randn(len(cond), *model.latent_shape)
    return x, torch.full((len(cond),), 500), cond


def forward(model: nn.Module, cond: Tensor, precision: str, device: str, compiled: bool = False) -> Callable:
    """One forward for sampling."""
    compute = Compute(torch.device(device), precision)
    for_sampling(model, compute, compiled)
    given = [each.to(compute.device) for each in inputs(model, cond)]

    @torch.no_grad()
    def step() -> None:
        with compute.autocast():
            model(*given)

    return step


def dit(size: dict, device: str) -> Callable:
    """A forward of two samples."""
    return forward(new_dit(size), torch.tensor([1, 2]), "bf16" if size["bf16"] else "fp32", device)


def unet(size: dict, device: str) -> Callable:
    """A forward of two samples."""
    model = new_unet(size)
    return forward(model, torch.randn(2, 77, model.config.text_width), "bf16", device)


def new_unet(size: dict) -> UNet:
    """Stable Diffusion's UNet with random weights."""
    with torch.device("meta"):
        model = UNet(replace(UNETS["SD-1"], **size["unet"], input_size=size["side"] // 8))
    return filled(model)


def new_vae(size: dict) -> VAE:
    """Stable Diffusion's autoencoder with random weights."""
    with torch.device("meta"):
        model = VAE(VAEConfig(**vae_fields(size)))
    return filled(model)


def vae_fields(size: dict) -> dict:
    """The autoencoder's fields."""
    return {"channels": tuple(size["vae"]), "groups": size["groups"], "layers": size["layers"]}


def vae_decode(size: dict, device: str) -> Callable:
    """One image of a latent."""
    compute, vae = Compute(torch.device(device), "bf16"), new_vae(size)
    vae = vae.to(compute.device).requires_grad_(False)
    z = torch.randn(1, 4, size["side"] // 8, size["side"] // 8, device=compute.device)

    @torch.no_grad()
    def step() -> None:
        with compute.autocast():
            vae.images(z)

    return step


def ddim(size: dict, device: str) -> Callable:
    """One guided image, all steps of it and its decoding."""
    compute, model, vae = Compute(torch.device(device), "bf16"), new_dit(size), new_vae(size)
    vae.to(compute.device).requires_grad_(False)
    for_sampling(model, compute)
    cond, schedule = torch.tensor([1], device=compute.device), Schedule.linear()
    with compute.autocast():
        tabulate(model, schedule.timesteps(size["steps"]), [1, model.null])

    @torch.no_grad()
    def step() -> None:
        with compute.autocast():
            denoiser = batched_cfg(model, cond, model.null, 4.0)
            z = sample_latents(
                denoiser, range(1), model.latent_shape, schedule, "ddim", size["steps"], device=compute.device
            )
            to_uint8(vae.images(z))

    return step


def sampler(size: dict, device: str) -> Callable:
    """Fifty steps of DDIM, whose model is one tensor."""
    out, schedule = torch.randn(1, 4, 32, 32, device=device), Schedule.linear()

    def step() -> None:
        sample_latents(lambda here: lambda x, t: out, range(1), (4, 32, 32), schedule, "ddim", 50, device=device)

    return step


def trained(model: nn.Module, specs: list[str], cond: Tensor, device: str, checkpoint: str = "none") -> Callable:
    """A step of train.py's loop, on latents and conditions that are there. checkpoint: of --checkpoint."""
    compute = Compute(torch.device(device), "bf16")
    for_training(adapters.attach(model.to(compute.device).train(), specs), compute, Blocks(checkpoint), specs)
    options, run = Loop(batch=len(cond), clip=0.0, ema=0.0), Run(precision=compute.precision, device=device)
    batch = {"x0": torch.randn(len(cond), *model.latent_shape), "cond": cond}
    schedule = Schedule.linear()
    loss = denoising(model, lambda progress: schedule)
    job = Job(model, specs, ["one"] * len(cond), lambda index, generator: batch, loss, None, None)
    optimizer = train.first_state({Loop: options}, job).optimizer
    number = iter(range(10**6))

    def step() -> None:
        train.one_step(options, run, next(number), job, optimizer)

    return step


def bitfit(size: dict, device: str) -> Callable:
    """The biases train."""
    return trained(new_dit(size), BITFIT, torch.arange(size["batch"]), device)


def bitfit_twice(size: dict, device: str) -> Callable:
    """The biases train, and each block is computed twice."""
    return trained(new_dit(size), BITFIT, torch.arange(size["batch"]), device, "blocks")


def lora(size: dict, device: str) -> Callable:
    """LoRA of rank 8 on the four projections of attention."""
    return trained(new_dit(size), LORA, torch.arange(size["batch"]), device)


def full(size: dict, device: str) -> Callable:
    """Everything trains, batch 1."""
    return trained(new_dit(size), ["full"], torch.arange(1), device)


def full_b4(size: dict, device: str) -> Callable:
    """Everything trains, the batch of `bitfit`."""
    return trained(new_dit(size), ["full"], torch.arange(size["batch"]), device)


def new_sd(size: dict) -> weights.StableDiffusion:
    """A Stable Diffusion with random weights, whose tokenizer knows one caption."""
    with torch.device("meta"):
        text = TextEncoder(replace(TEXT_ENCODERS["CLIP-L"], **size["text"]))
    tokenizer = Tokenizer.train(["a photo of a hazelnut"], text.config.vocab_size, length=text.config.max_length)
    return weights.StableDiffusion(new_unet(size), filled(text), tokenizer, new_vae(size), weights.sd_schedule())


def sd_lora(size: dict, device: str) -> Callable:
    """LoRA of rank 4 on the attention of the UNet; latents and text states were encoded before."""
    return trained_sd(size, ["unet.lora:rank=4"], device)


def sd_full(size: dict, device: str) -> Callable:
    """The whole UNet trains, one image; latents and text states were encoded before."""
    return trained_sd(size, ["unet.full"], device)


def trained_sd(size: dict, specs: list[str], device: str) -> Callable:
    """`trained` of a UNet whose text encoder is not called."""
    with torch.device("meta"):
        text = TextEncoder(replace(TEXT_ENCODERS["CLIP-L"], **size["text"]))
    model = TextConditioned(new_unet(size), text)
    cond = torch.randn(1, 77, model.unet.config.text_width)
    model.text.to_empty(device="cpu")
    return trained(model, specs, cond, device)


def read(size: dict, device: str) -> Callable:
    """A checkpoint of a DiT."""
    work = tempfile.TemporaryDirectory()
    path = Path(work.name) / "dit.pt"
    torch.save(new_dit(size).state_dict(), path)
    return reading(lambda: [weights.load(path, expect="dit", heads=size["heads"])], device, work)


def read_sd(size: dict, device: str) -> Callable:
    """A Stable Diffusion in a single file."""
    work, sd = tempfile.TemporaryDirectory(), new_sd(size)
    path = Path(work.name) / "sd.safetensors"
    weights.save_sd(sd, path, "sd-compvis")
    sd.tokenizer.save(work.name)
    given = {"unet": size["unet"], "text": size["text"], "vae": vae_fields(size)}

    def load() -> list[nn.Module]:
        loaded = weights.load_sd(path, tokenizer=work.name, **given)
        return [loaded.unet, loaded.text, loaded.vae]

    return reading(load, device, work)


def reading(load: Callable[[], list[nn.Module]], device: str, work: tempfile.TemporaryDirectory) -> Callable:
    """Load models in float32 and read every weight once; the peak is told without what was there before."""

    def step() -> dict:
        before = peak(device)
        for model in load():
            for parameter in model.parameters():
                parameter.detach().sum()
        assert work.name
        return {"peak": peak(device) - before}

    return step

"""Stable Diffusion 1.5 at full size: `python -m bench.full_size_sd` tries it here and writes docs/full_size_sd.md.

Random weights, once as a single file in float32, which is read, and once as a diffusers folder in float16, which
train.py and sample.py convert to float32: LoRA and DreamBooth, a few steps each, and sampling, at 512 pixels on the
processor. Each command is a process of its own (see child.py).
"""

import time
from datetime import date
from pathlib import Path
from types import ModuleType
from typing import NamedTuple

from bench import child

# torch and the package are imported by the parts alone, as in child.py


class Size(NamedTuple):
    """The sizes of one benchmark."""

    name: str
    side: int  # of an image, in pixels
    unet: dict  # fields of UNetConfig that are not those of UNETS["SD-1"]
    text: dict  # of TextConfig, not of TEXT_ENCODERS["CLIP-L"]
    vae: dict  # of VAEConfig, not of SIZES["VAE-SD"]
    disk: float  # GiB that must be free


FULL = Size("Stable Diffusion 1.5", 512, {}, {}, {}, 8)
TINY = Size(
    "A tiny Stable Diffusion",
    64,
    {
        "channels": (16, 32),
        "text": (1, 0),
        "heads": (2, 2),
        "layers": 1,
        "text_width": 32,
        "groups": 4,
        "input_size": 8,
    },
    {"vocab_size": 560, "width": 32, "layers": 2, "heads": 2, "max_length": 16},
    {"channels": (8, 8, 8, 8), "layers": 1, "groups": 4},
    0.1,
)
FILE, FOLDER = "sd.safetensors", "sd"
COMMON = (
    f"--model WORK/{FOLDER} --data WORK/images --batch 1 --flips none --rotations 0 --count 1 --sample-steps 2 "
    "--cache= --device cpu --steps 2"
)
LORA = f'train.py --recipe text {COMMON} --template "a photo of a {{class}}" --adapter unet.lora:rank=4 --out WORK/lora'
DREAMBOOTH = (
    f'--recipe dreambooth {COMMON} --template "a photo of a sks {{class}}" --class-prompt "a photo of a '
    'hazelnut" --class-images 1 --adapter unet.full --lr 2e-6 --ema 0 --precision bf16 --out WORK/dreambooth'
)
SAMPLE = (
    'sample.py --run WORK/lora --prompt "a photo of a hazelnut" --steps 2 --guidance 4 --count 1 --device cpu '
    "--out WORK/drawn"
)


def make(work: Path, size: Size) -> dict:
    """Write both layouts of one model, the weights of its UNet N(0, 0.02), and one image; returns `describe`.

    The tokenizer knows two captions; the token table keeps its published size, of which most rows are never read.
    """
    from dataclasses import replace

    import torch

    import weights
    from data.generated.photographs import image
    from data.output.grid import save_image
    from unet import VAE, TextEncoder, Tokenizer, UNet, vae
    from unet.sizes import TEXT_ENCODERS, UNETS

    torch.manual_seed(0)
    tower = TextEncoder(replace(TEXT_ENCODERS["CLIP-L"], **size.text))
    captions = ["a photo of a hazelnut", "a photo of a sks hazelnut"]
    tokenizer = Tokenizer.train(captions, tower.config.vocab_size, length=tower.config.max_length)
    sd = weights.StableDiffusion(
        UNet(replace(UNETS["SD-1"], **size.unet)),
        tower,
        tokenizer,
        VAE(replace(vae.SIZES["VAE-SD"], **size.vae)),
        weights.sd_schedule(),
    )
    for parameter in sd.unet.parameters():  # those that start at zero too
        torch.nn.init.normal_(parameter, std=0.02)
    weights.save_sd(sd, work / FILE, "sd-compvis")
    weights.save_sd(sd, work / FOLDER, "sd-diffusers", torch.float16)
    save_image(work / "images" / "hazelnut" / "0.png", image("hazelnut", "good", "few", 0, size=size.side)[0])
    return child.describe([sd.unet, sd.text, sd.vae])


def read(work: Path, size: Size) -> list:
    """`read_by` of the UNet, the text encoder and the autoencoder in one file."""

    def load(weights: ModuleType) -> tuple:
        sd = weights.load_sd(
            work / FILE, tokenizer=work / FOLDER / "tokenizer", unet=size.unet, text=size.text, vae=size.vae
        )
        return sd.unet, sd.text, sd.vae

    return child.read_by(load)


def sample(work: Path, size: Size) -> float:
    """`guided_step` of the diffusers folder."""
    import torch

    import weights
    from unet import TextConditioned, encode_prompts

    sd = weights.load_sd(work / FOLDER, dtype=torch.float32)
    model = TextConditioned(sd.unet, sd.text)
    with torch.no_grad():
        states = encode_prompts(sd.text, sd.tokenizer, ["a photo of a hazelnut", ""])  # (2, L, D)
    return child.guided_step(model, model.latent_shape, states[:1], states[1:], sd.schedule)


def dreambooth(work: Path, size: Size) -> list:
    """`stage` of what comes before the first step, of the first, which makes AdamW's moments, and of the second.

    The job, the optimizer and the steps are those of train.py, without what it does around them: its checkpoint of
    parameters and moments would have 10 GB, its model/ another 4.
    """
    import torch

    import train
    from config.training import Loop, Run
    from ops.device import Compute, choose_device
    from recipes import RECIPES
    from recipes.settings import configure

    began, config = time.perf_counter(), configure(child.words(DREAMBOOTH, work), "")
    run, loop = config[Run], config[Loop]
    torch.manual_seed(run.seed)
    job = RECIPES[run.recipe].build(config, Compute(choose_device(run.device), run.precision))
    state = train.first_state(config, job)
    stages = [child.stage(began)]
    for step in range(loop.steps):
        began = time.perf_counter()
        train.one_step(loop, run, step, job, state.optimizer)
        stages.append(child.stage(began))
    return stages


PARTS = {"make": make, "read": read, "sample": sample, "dreambooth": dreambooth}


def report(size: Size, made: dict, rows: list[child.Row], file: int, load: float) -> str:
    """The page: machine, model, table, and what `dreambooth` trains."""
    lines = [
        f"# Full size: Stable Diffusion\n\n`python -m bench.full_size_sd{' --tiny' * (size is TINY)}` on "
        f"{date.today()}:\n",
        *child.machine(made, load),
        f"- {size.name} at {size.side} pixels, random weights: {made['tensors']} tensors, {made['values']:,} "
        f"values; read as one file of {file / child.GIB:.2f} GiB in float32, trained and sampled from as a "
        "diffusers folder in float16, converted to float32 on loading; both read soon after they were written\n",
    ]
    notes = [
        "\nOn loading, models up to 1 GB are searched for NaN: of this one, text encoder and autoencoder.",
        f"\nDreamBooth is `train.py {DREAMBOOTH}`, the whole UNet in AdamW, one image and one class image a step, "
        "in bfloat16 autocast; without the checkpoint and the grids that train.py adds around the steps.",
    ]
    return "\n".join(lines + child.table(rows, file) + notes) + "\n"


def measure(work: Path, size: Size) -> str:
    """Everything, in the folder `work` -> the page. ValueError if its disk is too full or the files cannot be made."""
    load = child.room(work, size.disk)
    part = f"-m bench.full_size_sd {{}}{' --tiny' * (size is TINY)} --work WORK".format
    made = child.made_by(work, part("make"))
    rows = child.reading(child.run("import torch, weights", work, part("read")), "weights.load_sd, the single file")
    rows.append(child.run("train.py, LoRA, steps: 2, a grid before and after", work, LORA))
    at = [] if rows[-1].failure else child.step_ends(work / "lora" / "log.jsonl")
    step = at[1] - at[0] if at else None
    rows.append(child.Row("one LoRA step, of these", "by log.jsonl, from the end of the first", step, rows[-1].peak))
    rows.append(child.run("sample.py, one image in 2 guided steps", work, SAMPLE))
    rows.append(child.guided_row(child.run("one guided DDIM step", work, part("sample"))))
    rows += child.staged(
        child.run("", work, part("dreambooth")),
        "DreamBooth, up to the first step",
        "DreamBooth, the first step",
        "DreamBooth, the second step",
    )
    return report(size, made, rows, (work / FILE).stat().st_size, load)


if __name__ == "__main__":
    child.main(PARTS, (FULL, TINY), measure, "full_size_sd.md")

"""Stable Diffusion 1.5 at full size: `python docs/full_size_sd.py` tries it here and writes docs/full_size_sd.md.

Random weights, once as a single file in float32, which is read, and once as a diffusers folder in float16, which
train.py and sample.py convert to float32: LoRA and DreamBooth, a few steps each, and sampling, at 512 pixels on the
processor. How it measures is told in docs/full_size.py.
"""

import sys
import time
from datetime import date
from pathlib import Path
from typing import NamedTuple

import full_size as bench

# torch and the package are imported by the parts alone, as in full_size.py


class Size(NamedTuple):
    name: str
    side: int  # of an image, in pixels
    unet: dict  # fields of UNetConfig that are not those of SIZES["SD-1"]
    text: dict  # of TextConfig, not of SIZES["CLIP-L"]
    vae: dict  # of VAEConfig, not of SIZES["VAE-SD"]
    disk: float  # GiB that must be free


FULL = Size("Stable Diffusion 1.5", 512, {}, {}, {}, 8)
TINY = Size(
    "A tiny Stable Diffusion",
    64,
    {
        "channels": (16, 32),
        "text": (True, False),
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
    "--measure 0 --cache= --device cpu --steps 2"
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
    """Both layouts of one model, the weights of its UNet N(0, 0.02), and one image; returns what it was done with.

    The tokenizer knows two captions; the token table keeps its published size, of which most rows are never read.
    """
    from dataclasses import replace

    import torch

    import weights
    from data.generated import image
    from data.grid import save_image
    from ops.device import bf16
    from unet import VAE, TextEncoder, Tokenizer, UNet, model, text, vae

    torch.manual_seed(0)
    tower = TextEncoder(replace(text.SIZES["CLIP-L"], **size.text))
    captions = ["a photo of a hazelnut", "a photo of a sks hazelnut"]
    tokenizer = Tokenizer.train(captions, tower.config.vocab_size, length=tower.config.max_length)
    sd = weights.StableDiffusion(
        UNet(replace(model.SIZES["SD-1"], **size.unet)),
        tower,
        tokenizer,
        VAE(replace(vae.SIZES["VAE-SD"], **size.vae)),
        weights.schedule.stable_diffusion(),
    )
    for parameter in sd.unet.parameters():  # those that start at zero too
        torch.nn.init.normal_(parameter, std=0.02)
    weights.save_sd(sd, work / FILE, "sd-compvis")
    weights.save_sd(sd, work / FOLDER, "sd-diffusers", torch.float16)
    save_image(work / "images" / "hazelnut" / "0.png", image("hazelnut", "good", "few", 0, size=size.side)[0])
    values = [tensor.numel() for part in (sd.unet, sd.text, sd.vae) for tensor in part.state_dict().values()]
    return {
        "tensors": len(values),
        "values": sum(values),
        "threads": torch.get_num_threads(),
        "precision": "bfloat16 autocast" if bf16("auto", torch.device("cpu")) else "float32",
    }


def read(work: Path, size: Size) -> list:
    def load(weights):
        sd = weights.load_sd(
            work / FILE, tokenizer=work / FOLDER / "tokenizer", unet=size.unet, text=size.text, vae=size.vae
        )
        return sd.unet, sd.text, sd.vae

    return bench.read_by(load)


def draw(work: Path, size: Size) -> float:
    import torch

    import weights
    from unet import TextConditioned, encode_prompts

    sd = weights.load_sd(work / FOLDER, dtype=torch.float32)
    model = TextConditioned(sd.unet, sd.text)
    with torch.no_grad():
        states = encode_prompts(sd.text, sd.tokenizer, ["a photo of a hazelnut", ""])  # (2, L, D)
    return bench.guided_step(model, model.latent_shape, states[:1], states[1:], sd.schedule)


def dreambooth(work: Path, size: Size) -> list:
    """`stage` of what comes before the first step, of the first, which makes AdamW's moments, and of the second.

    The job, the optimizer and the steps are those of train.py, without what it does around them: its checkpoint of
    parameters and moments would have 10 GB, its model/ another 4.
    """
    import torch

    import adapters
    import train
    from recipes import recipes

    began, cfg = time.perf_counter(), train.configure(bench.words(DREAMBOOTH, work))
    torch.manual_seed(cfg.seed)
    job = recipes()[cfg.recipe](cfg, torch.device(cfg.device))
    groups = train.rated(adapters.trainable_parameters(job.model), job.rates, cfg.lr)
    optimizer = torch.optim.AdamW(groups, weight_decay=cfg.weight_decay, fused=True)
    stages = [bench.stage(began)]
    for step in range(cfg.steps):
        began = time.perf_counter()
        train.one_step(cfg, step, job, optimizer)
        stages.append(bench.stage(began))
    return stages


PARTS = {"make": make, "read": read, "draw": draw, "dreambooth": dreambooth}


def report(size: Size, made: dict, rows: list[bench.Row], file: int, load: float) -> str:
    """The page: machine, model, table, and what `dreambooth` trains."""
    lines = [
        f"# Full size: Stable Diffusion\n\n`python docs/full_size_sd.py{' --tiny' * (size is TINY)}` on "
        f"{date.today()}:\n",
        *bench.machine(made, load),
        f"- {size.name} at {size.side} pixels, random weights: {made['tensors']} tensors, {made['values']:,} "
        f"values; read as one file of {file / bench.GIB:.2f} GiB in float32, trained and sampled from as a "
        "diffusers folder in float16, converted to float32 on loading; both read soon after they were written\n",
    ]
    notes = [
        "\nOn loading, models up to 1 GB are searched for NaN: of this one, text tower and autoencoder.",
        f"\nDreamBooth is `train.py {DREAMBOOTH}`, the whole UNet in AdamW, one image and one class image a step, "
        "in bfloat16 autocast; without the checkpoint and the grids that train.py adds around the steps.",
    ]
    return "\n".join(lines + bench.table(rows, file) + notes) + "\n"


def measure(work: Path, size: Size) -> str:
    """Everything, in the folder `work` -> the page. ValueError if its disk is too full or the files cannot be made."""
    load = bench.room(work, size.disk)
    part = f"docs/full_size_sd.py {{}}{' --tiny' * (size is TINY)} --work WORK".format
    made = bench.made_by(work, part("make"))
    rows = bench.reading(bench.run("import torch, weights", work, part("read")), "weights.load_sd, the single file")
    rows.append(bench.run("train.py, LoRA, steps: 2, a grid before and after", work, LORA))
    at = [] if rows[-1].failure else bench.step_ends(work / "lora" / "log.jsonl")
    step = at[1] - at[0] if at else None
    rows.append(bench.Row("one LoRA step, of these", "by log.jsonl, from the end of the first", step, rows[-1].peak))
    rows.append(bench.run("sample.py, one image in 2 guided steps", work, SAMPLE))
    rows.append(bench.guided(bench.run("one guided DDIM step", work, part("draw"))))
    rows += bench.staged(
        bench.run("", work, part("dreambooth")),
        "DreamBooth, up to the first step",
        "DreamBooth, the first step",
        "DreamBooth, the second step",
    )
    return report(size, made, rows, (work / FILE).stat().st_size, load)


if __name__ == "__main__":
    try:
        bench.main(None, PARTS, (FULL, TINY), measure, "full_size_sd.md")
    except (ValueError, OSError) as error:
        sys.exit(f"error: {error}")

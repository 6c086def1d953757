"""DiT-XL/2 at full size: `python -m bench.full_size_dit` tries the commands here and writes docs/full_size.md.

A DiT-XL/2 at 256 pixels and Stable Diffusion's autoencoder, random weights in the layouts of the published files, are
loaded, trained for a few steps and sampled from, on the processor of a Linux or macOS machine. Each command is a
process of its own (see child.py).
"""

from datetime import date
from pathlib import Path
from typing import NamedTuple

from bench import child

# torch and the package are imported by the parts alone, as in child.py


class Size(NamedTuple):
    """The sizes of one benchmark."""

    model: str  # one of dit.SIZES
    side: int  # of an image, in pixels
    vae: dict  # fields of VAEConfig that are not Stable Diffusion's
    disk: float  # GiB that must be free
    file: str  # in which the DiT is


FULL = Size("DiT-XL/2", 256, {}, 4, "DiT-XL-2-256x256.pt")
TINY = Size("DiT-T/2", 64, {"channels": (8, 8, 8, 8), "layers": 1, "groups": 4}, 0.1, "DiT-T-2-64x64.pt")
TRAIN = (
    "train.py --model WORK/{0} --vae WORK/vae --data WORK/images --adapter lora:rank=8 --batch 1 --flips none "
    "--rotations 0 --count 1 --sample-steps 2 --measure 0 --cache= --device cpu --steps {1} --out WORK/run{1}"
)
SAMPLE = "sample.py --run WORK/run3 --steps 2 --guidance 4 --count 1 --classes one --device cpu --out WORK/drawn"


def make(work: Path, size: Size) -> dict:
    """Write weights N(0, 0.02), those that start at zero too, and images of two classes; returns `describe`."""
    import torch

    from data.generated.photographs import image
    from data.output.grid import save_image
    from dit import DiT
    from unet import VAE, VAEConfig
    from weights.convert import export

    torch.manual_seed(0)
    model = DiT.from_name(size.model, image_size=size.side)
    for parameter in (p for p in model.parameters() if p.requires_grad):  # the table of positions stays
        torch.nn.init.normal_(parameter, std=0.02)
    torch.save(model.state_dict(), work / size.file)
    export(VAE(VAEConfig(**size.vae)), work / "vae", "vae-diffusers")
    for i, (name, state) in enumerate([("one", "good"), ("two", "crack")] * 2):
        save_image(work / "images" / name / f"{i}.png", image("hazelnut", state, "few", i, size=size.side)[0])
    return child.describe([model])


def read(work: Path, size: Size) -> list:
    """`read_by` of the DiT."""
    return child.read_by(lambda weights: [weights.load(work / size.file)])


def sample(work: Path, size: Size) -> float:
    """`guided_step` of the DiT."""
    import torch

    import sampling
    import weights

    model = weights.load(work / size.file, expect="dit", dtype=torch.float32)
    return child.guided_step(model, model.latent_shape, torch.tensor([0]), model.null, sampling.Schedule.linear())


PARTS = {"make": make, "read": read, "sample": sample}


def report(size: Size, made: dict, rows: list[child.Row], file: int, load: float) -> str:
    """The page: machine, models and table."""
    lines = [
        f"# Full size\n\n`python -m bench.full_size_dit{' --tiny' * (size is TINY)}` on {date.today()}:\n",
        *child.machine(made, load),
        f"- {size.model} at {size.side} pixels, random weights: {made['tensors']} tensors, {made['values']:,} "
        f"values, {file / child.GIB:.2f} GiB, read soon after they were written\n",
    ]
    return "\n".join(lines + child.table(rows, file)) + "\n"


def measure(work: Path, size: Size) -> str:
    """Everything, in the folder `work` -> the page. ValueError if its disk is too full or the files cannot be made."""
    load = child.room(work, size.disk)
    part = f"-m bench.full_size_dit {{}}{' --tiny' * (size is TINY)} --work WORK".format
    made = child.made_by(work, part("make"))
    rows = child.reading(child.run("import torch, weights", work, part("read")))
    rows += [
        child.run(f"train.py, steps: {n}, a grid before and after", work, TRAIN.format(size.file, n)) for n in (1, 3)
    ]
    at = [] if rows[-1].failure else child.step_ends(work / "run3" / "log.jsonl")
    step = (at[2] - at[0]) / 2 if at else None
    rows.append(
        child.Row("one training step, of these", "by log.jsonl, from the end of the first", step, rows[-1].peak)
    )
    rows.append(child.run("sample.py, one image in 2 guided steps", work, SAMPLE))
    rows.append(child.guided_row(child.run("one guided DDIM step", work, part("sample"))))
    return report(size, made, rows, (work / size.file).stat().st_size, load)


if __name__ == "__main__":
    child.main(PARTS, (FULL, TINY), measure, "full_size.md")

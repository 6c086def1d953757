"""DreamBooth writes a logo best and copies most; LoRA carries it to other things; Textual Inversion only comes near.

Claimed by the logo study of De Man, with Stable Diffusion 1.5, 49 photographs of black clothes, a detector and a text
reader. Here: tiny-sd first learns garments, a billboard and a perfume, with no logo or with wrong ones. Each method
then has 48 photographs of black garments with the logo, and samples it on those and on things that no photograph shows
with it. The scores are the study's (metrics/alignment/scores.py), by a detector and a reader of the generated logo
(examples/logo_scorer.py).
"""

from pathlib import Path
from statistics import mean

import torch
from PIL import Image
from torch.nn import functional as F

from data import ImageSet, load
from data.output.grid import grid, save_image
from data.transforms import Transform, to_tensor
from evidence.results import Result, Runs
from evidence.steps import SIDE, plan_of
from experiments.comparison import compare, samples_of
from experiments.plan import Plan
from experiments.run import train
from experiments.table import Column
from metrics.alignment.scores import normalised

BASE = {
    "model": "tiny-sd",
    "recipe": "text",
    "data": "generated:nothing+fake/base/60",
    "adapter": ["unet.full", "text.full"],
    "flips": "none",
    "rotations": "0",
    "steps": 2500,
    "lr": 4e-4,
    "warmup": 100,
    "ema": 0.999,
    "mask_weight": 4.0,
    "sample_every": 500,
    "sample_steps": 20,
    "count": 1,
}
METHODS = {
    "dreambooth": "DreamBooth",
    "lora-4": "LoRA, rank 4",
    "lora-16": "LoRA, rank 16",
    "lora-16-all": "LoRA, rank 16, every layer",
    "textual_inversion": "Textual Inversion",
}
SCORES = ("detector", "text", "combined")
SEEN = "logo_on_black/"  # what the photographs show


def numbers(work: Path, quick: bool) -> list[dict]:
    """The rows of the comparison, with the scores and the share of things kept."""
    base = train(work.resolve() / "logo" / "base", BASE | ({"steps": 2} if quick else {}))
    plan = plan_of("logo", quick)
    plan.train["model"] = str(base / "model")
    rows, real = compare(plan, work / "logo"), load(plan.real, Transform(SIDE))
    save_image(work / "logo.png", picture(plan, work / "logo", real))
    for row in rows:
        row |= {name: row["scores"][f"logo, {name}"] for name in SCORES}
        row["things"] = things(plan, work / "logo" / f"{row['method']}-{row['seed']}", real)
    return rows


def things(plan: Plan, run: Path, real: ImageSet) -> float:
    """Of the samples on things without a photograph with the logo, the share that shows the thing of the prompt: of the
    mean photographs of all things, the one nearest by pixels, averaged over squares of 8, shows it."""
    samples = samples_of(plan, run / "drawn", Transform(SIDE), real)
    photographs, x = (F.avg_pool2d(to_tensor(images.pixels), 8).flatten(1) for images in (real, samples))  # (N, D)
    means = torch.stack([photographs[real.labels == i].mean(0) for i in range(len(real.classes))])
    right = torch.cdist(x, means).argmin(1) == samples.labels
    new = torch.tensor([not name.startswith(SEEN) for name in real.classes])[samples.labels]
    return right[new].double().mean().item()


def picture(plan: Plan, runs: Path, real: ImageSet) -> Image.Image:
    """For each prompt a photograph that none trained on, and the first sample of every method's first run."""
    labels = [real.classes.index(name) for name in plan.classes_of_prompts.values()]
    columns = {"photographs": real} | {
        title: samples_of(plan, runs / f"{method}-0" / "drawn", Transform(SIDE), real)
        for method, title in METHODS.items()
    }
    cells = {title: [images.pixels[images.labels == label][0] for label in labels] for title, images in columns.items()}
    return grid(cells, list(plan.classes_of_prompts))


def result(rows: list[dict]) -> Result:
    """The statements, and the table."""
    runs = Runs(rows)
    means = [[mean(runs.values(key, method)) for method in METHODS] for key in ("detector", "text")]
    ranks = dict(zip(METHODS, normalised(*means)))
    runs = Runs([row | {"normalised": ranks[row["method"]]} for row in rows])
    columns = [*(Column(key, key) for key in (*SCORES, "normalised")), Column("things", "things kept")]
    score, every = "combined", "lora-16-all"
    return Result(
        [
            runs.higher("DreamBooth scores above LoRA of rank 16 on attention", score, "dreambooth", "lora-16"),
            runs.higher("DreamBooth scores above LoRA of rank 16 on every layer", score, "dreambooth", every),
            runs.higher("DreamBooth scores above Textual Inversion", score, "dreambooth", "textual_inversion"),
            runs.higher("DreamBooth copies more than LoRA on every layer", "copies", "dreambooth", every),
            runs.higher("LoRA on every layer keeps more of the other things", "things", every, "dreambooth"),
        ],
        runs.table(METHODS, [*columns, "copies", "copies_pixels", "authentic", "coverage"])
        + "\n*things kept*: of the samples on things that no photograph shows with the logo, those whose colours are "
        "nearest to the mean photograph of the thing in the prompt\n"
        "\n![Prompts in the rows, methods in the columns, the first seed.](evidence/logo.png)\n",
    )

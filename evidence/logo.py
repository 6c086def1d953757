"""DreamBooth writes the logo best and copies most; LoRA carries it to other things; a new word comes only near.

Found by the logo study of De Man with Stable Diffusion 1.5, 49 photographs of black clothes, a detector and a text
reader. Here: tiny-sd, first taught garments, a billboard and a perfume, with no logo or with wrong ones, then shown 48
photographs of black garments with the logo, and asked for it on those and on what it never saw with it. The scores are
the study's (metrics/statistics/scores.py), by a detector and a reader of the generated logo (docs/logo_scorer.py).
"""

from pathlib import Path
from statistics import mean

import torch
from PIL import Image
from torch.nn import functional as F

import compare
import train
from data import ImageSet, load
from data.output.grid import grid, save_image
from data.transforms import Transform, to_tensor
from evidence import planned, spread, table, verdicts
from metrics.statistics.scores import normalised

BASE = [
    "--model",
    "tiny-sd",
    "--recipe",
    "text",
    "--data",
    "generated:nothing+fake/base/60",
    "--adapter",
    "unet.full",
    "--adapter",
    "text.full",
    "--flips",
    "none",
    "--rotations",
    "0",
    "--steps",
    "2500",
    "--lr",
    "4e-4",
    "--warmup",
    "100",
    "--ema",
    "0.999",
    "--mask_weight",
    "4",
    "--sample_every",
    "500",
    "--sample_steps",
    "20",
    "--count",
    "1",
]
METHODS = {
    "dreambooth": "DreamBooth",
    "lora-4": "LoRA, rank 4",
    "lora-16": "LoRA, rank 16",
    "lora-16-all": "LoRA, rank 16, every layer",
    "textual_inversion": "a new word",
}
SCORES = ("detector", "text", "combined")
SEEN = "logo_on_black/"  # what the photographs show
COLUMNS = {
    "things": "things kept",
    "copies": "copies",
    "copies_pixels": "copies, pixels",
    "authentic": "authentic",
    "coverage": "coverage",
}


def numbers(work, quick):
    base = work.resolve() / "logo" / "base"
    if not (base / "model").exists():
        train.main(
            [
                *BASE,
                "--out",
                str(base),
                *(["--resume"] if (base / "config.toml").exists() else []),
                *(["--steps", "2"] if quick else []),
            ]
        )
    plan = planned("logo", quick)
    plan.train["model"] = str(base / "model")
    rows, real = compare.compare(plan, work / "logo"), load(plan.real, Transform(64))
    save_image(work / "logo.png", pictured(plan, work / "logo", real))
    return [
        row
        | {name: row["scores"][f"logo, {name}"] for name in SCORES}
        | {"things": things(plan, work / "logo" / f"{row['method']}-{row['seed']}", real)}
        for row in rows
    ]


def things(plan: compare.Plan, run: Path, real: ImageSet) -> float:
    """Of the samples on what the logo was not photographed on, the share that show that: of the mean photographs of all
    things, the one nearest by pixels, averaged over squares of 8, is of the thing that was asked for."""
    drawn = compare.samples(plan, run / "drawn", Transform(64), real)
    photographs, shown = (F.avg_pool2d(to_tensor(images.pixels), 8).flatten(1) for images in (real, drawn))  # (N, D)
    means = torch.stack([photographs[real.labels == i].mean(0) for i in range(len(real.classes))])
    right = torch.cdist(shown, means).argmin(1) == drawn.labels
    new = torch.tensor([not name.startswith(SEEN) for name in real.classes])[drawn.labels]
    return right[new].double().mean().item()


def pictured(plan: compare.Plan, runs: Path, real: ImageSet) -> Image.Image:
    """For each prompt a photograph that none trained on, and the first sample of every method's first run."""
    first = [real.classes.index(name) for name in plan.asked.values()]
    shown = {"photographs": real} | {
        title: compare.samples(plan, runs / f"{method}-0" / "drawn", Transform(64), real)
        for method, title in METHODS.items()
    }
    cells = {title: [images.pixels[images.labels == label][0] for label in first] for title, images in shown.items()}
    return grid(cells, list(plan.asked))


def section(rows):
    values = {
        key: {method: [row[key] for row in rows if row["method"] == method] for method in METHODS}
        for key in (*SCORES, *COLUMNS)
    }
    means = [[mean(values[key][method]) for method in METHODS] for key in ("detector", "text")]
    ranked = dict(zip(METHODS, normalised(*means)))
    lines = [
        [
            text,
            *(spread(values[key][method]) for key in SCORES),
            f"{ranked[method]:.2f}",
            *(spread(values[key][method]) for key in COLUMNS),
        ]
        for method, text in METHODS.items()
    ]
    both, every = values["combined"], {key: values[key]["lora-16-all"] for key in values}
    return (
        table(["", *SCORES, "normalised", *COLUMNS.values()], lines)
        + "\n*things kept*: of the samples on what the logo was not photographed on, those whose colours are "
        + "nearest to the mean photograph of what was asked for\n"
        + "\n![Prompts in the rows, methods in the columns, the first seed.](evidence/logo.png)\n"
        + verdicts(
            {
                "DreamBooth scores above LoRA of rank 16 on attention": (both["dreambooth"], both["lora-16"]),
                "above LoRA of rank 16 on every layer": (both["dreambooth"], every["combined"]),
                "above a new word": (both["dreambooth"], both["textual_inversion"]),
                "DreamBooth copies more than LoRA on every layer": (values["copies"]["dreambooth"], every["copies"]),
                "that LoRA keeps more of the things that the logo was not seen on": (
                    every["things"],
                    values["things"]["dreambooth"],
                ),
            }
        )
    )

"""A mask puts the defect where it says.

Proposed by the defect study for DiT, with a ControlNet (Zhang et al. 2023, arXiv 2302.05543). Here: tiny-dit,
fine-tuned on 20 images of each state of a hazelnut, then a ControlNet beside it on the masks of the same images. Masks
of photographs that neither has seen are asked for, and a network that was trained to find defects says where they are.
"""

from pathlib import Path

import numpy as np

import compare
import sample
from data import load
from data.output.grid import grid, save_image
from data.output.samples import read_samples
from data.transforms import Transform
from evidence import planned, spread, table, verdicts
from evidence.finder import overlap, share_near, trained

STATES = ("crack", "hole", "cut", "print")
COUNT = 20  # masks of each state
SHOWN = 4


def numbers(work, quick):
    """For masks that were asked for, those of another sample, no mask and real photographs: IoU and pointing hits."""
    plan, count = planned("control", quick), 2 if quick else COUNT
    finder = trained("hazelnut", work / "finder.safetensors", 20 if quick else 800, count * 10)
    real = load(f"generated:hazelnut/test/{count}", Transform(64))
    asked = {state: np.flatnonzero(real.labels.numpy() == real.classes.index(f"hazelnut/{state}")) for state in STATES}
    found = {
        "real": [both(finder, [real.pixels[asked[state]] for state in STATES], real.masks, asked)],
        "asked": [],
        "another": [],
        "plain": [],
        "count": count,
        "chance": share_near(real.masks[np.concatenate(list(asked.values()))]),
    }
    for seed in range(plan.seeds):
        runs = {method: compare.trained(plan, work.resolve() / "control", method, seed) for method in plan.methods}
        drawn = {
            method: [draw(run, seed, state, real.masks[asked[state]], method == "control", quick) for state in STATES]
            for method, run in runs.items()
        }
        rolled = {state: np.roll(index, 1) for state, index in asked.items()}
        found["asked"].append(both(finder, drawn["control"], real.masks, asked))
        found["another"].append(both(finder, drawn["control"], real.masks, rolled))
        found["plain"].append(both(finder, drawn["plain"], real.masks, asked))
        if not seed:
            picture(work / "control.png", real.masks, asked, drawn["control"])
    return found


def both(finder, pixels: list, masks, index: dict) -> list[float]:
    """`overlap` of all states together."""
    return list(overlap(finder, np.concatenate(pixels), masks[np.concatenate(list(index.values()))]))


def draw(run: Path, seed: int, state: str, masks, hints: bool, quick: bool) -> np.ndarray:
    """One sample of a state for each mask, (N, S, S, 3); the model without a ControlNet is not shown them."""
    out = run / f"where-{state}"
    if not (out / "grid.png").exists():
        files = [run / "masks" / f"{state}_{i}.png" for i in range(len(masks))]
        for file, mask in zip(files, masks):
            save_image(file, mask.astype(np.uint8) * 255)
        sample.main(
            [
                "--run",
                str(run),
                "--classes",
                f"hazelnut/{state}",
                "--count",
                str(len(masks)),
                "--seed",
                str(seed),
                "--out",
                str(out),
                *(f"--hint={file}" for file in files if hints),
            ]
            + (["--steps", "5"] if quick else [])
        )
    return read_samples(out, Transform(64)).pixels


def picture(path: Path, masks, asked: dict, drawn: list):
    """Masks above what was drawn into them, a few of each state."""
    columns = {
        f"{state} {i}": [np.repeat(masks[asked[state][i]][..., None], 3, 2).astype(np.uint8) * 255, images[i]]
        for state, images in zip(STATES, drawn)
        for i in range(min(SHOWN, len(images)))
    }
    save_image(path, grid(columns, ["asked", "drawn"], min_side=64))


def section(found):
    names = {
        "asked": "drawn with the mask, against that mask",
        "another": "drawn with the mask, against another one",
        "plain": "drawn without masks, against the same masks",
        "real": "real photographs, against their own",
    }
    lines = [[text, *(spread([run[i] for run in found[key]]) for i in range(2))] for key, text in names.items()]
    iou = {key: [run[0] for run in found[key]] for key in names}
    return (
        table(["", "intersection over union", "likeliest pixel in the mask"], lines)
        + f"\n{len(STATES) * found['count']} masks; a pixel chosen at random is in a mask, or within 2 pixels, in "
        + f"{found['chance']:.2f} of the images.\n"
        + verdicts(
            {
                "the defect lies where it was asked for rather than where another mask is": (
                    iou["asked"],
                    iou["another"],
                ),
                "it lies there more often than without a ControlNet": (iou["asked"], iou["plain"]),
            }
        )
        + "\n![Masks and what was drawn into them, the first seed.](evidence/control.png)\n"
    )

"""A mask decides where the defect lies.

Proposed by the defect study for DiT, with a ControlNet (Zhang et al. 2023, arXiv 2302.05543). Here: tiny-dit,
fine-tuned on 20 images of each state of a hazelnut, then a ControlNet beside it on the masks of the same images. Both
sample with masks of photographs that neither has seen, and a network that was trained to find defects locates them.
"""

from pathlib import Path

import numpy as np

from data import load
from data.output.grid import grid, save_image
from data.transforms import Transform
from evidence.results import Result, Runs
from evidence.steps import SIDE, plan_of, run_of, samples
from evidence.tools.finder import overlap, share_near, trained_finder
from experiments.table import Column

STATES = ("crack", "hole", "cut", "print")
COUNT, SHOWN = 20, 4  # masks of each state: sampled with, shown in the picture
ROWS = {
    "asked": "sampled with the mask, against that mask",
    "another": "sampled with the mask, against another one",
    "plain": "sampled without masks, against the same masks",
    "real": "real photographs, against their own",
}


def numbers(work: Path, quick: bool) -> dict:
    """Key of ROWS -> for each seed the intersection over union and the share of pointing hits."""
    count = 2 if quick else COUNT
    finder = trained_finder("hazelnut", work / "finder.safetensors", 20 if quick else 800, count * 10)
    real = load(f"generated:hazelnut/test/{count}", Transform(SIDE))
    of_state = [np.flatnonzero(real.labels.numpy() == real.classes.index(f"hazelnut/{state}")) for state in STATES]
    masks = [real.masks[index] for index in of_state]  # of each state (N, S, S)
    own, other = np.concatenate(masks), np.concatenate([np.roll(some, 1, 0) for some in masks])
    photographs = np.concatenate([real.pixels[index] for index in of_state])
    results = {"real": [list(overlap(finder, photographs, own))], "asked": [], "another": [], "plain": []}
    results |= {"count": count, "chance": share_near(own)}
    for seed in range(plan_of("control", quick).seeds):
        images = {}
        for method in ("plain", "control"):
            run = run_of("control", work, quick, method, seed)
            images[method] = [sampled(run, seed, *pair, method == "control", quick) for pair in zip(STATES, masks)]
        for key, method, target in (("asked", "control", own), ("another", "control", other), ("plain", "plain", own)):
            results[key].append(list(overlap(finder, np.concatenate(images[method]), target)))
        if not seed:
            picture(work / "control.png", masks, images["control"])
    return results


def sampled(run: Path, seed: int, state: str, masks: np.ndarray, hints: bool, quick: bool) -> np.ndarray:
    """One sample of a state for each mask, (N, S, S, 3); the model without a ControlNet gets no hints."""
    files = [run / "masks" / f"{state}_{i}.png" for i in range(len(masks))]
    for file, mask in zip(files, masks):
        save_image(file, mask.astype(np.uint8) * 255)
    settings = {"run": run, "classes": f"hazelnut/{state}", "count": len(masks), "seed": seed}
    return samples(run / f"where-{state}", None, quick, hint=files if hints else [], **settings).pixels


def picture(path: Path, masks: list[np.ndarray], images: list[np.ndarray]) -> None:
    """Masks above the samples with them, a few of each state."""
    columns = {
        f"{state} {i}": [np.repeat(some[i][..., None], 3, 2).astype(np.uint8) * 255, pixels[i]]
        for state, some, pixels in zip(STATES, masks, images)
        for i in range(min(SHOWN, len(pixels)))
    }
    save_image(path, grid(columns, ["mask", "sample"], min_side=64))


def result(numbers: dict) -> Result:
    """The statements, and the table."""
    runs = Runs([{"method": key, "iou": iou, "hit": hit} for key in ROWS for iou, hit in numbers[key]])
    columns = [Column("iou", "intersection over union"), Column("hit", "likeliest pixel in the mask")]
    return Result(
        [
            runs.higher("the defect overlaps its own mask more than another one", "iou", "asked", "another"),
            runs.higher("it overlaps the mask more than without a ControlNet", "iou", "asked", "plain"),
        ],
        runs.table(ROWS, columns)
        + f"\n{len(STATES) * numbers['count']} masks; a pixel chosen at random is in a mask, or within 2 pixels, in "
        f"{numbers['chance']:.2f} of the images.\n"
        "\n![Masks and the samples with them, the first seed.](evidence/control.png)\n",
    )

"""DreamBooth knows a new subject best and copies most; LoRA generalises; Textual Inversion only comes near.

Claimed by the logo study, with Stable Diffusion 1.5, and by LoRA against full fine-tuning in size, time and look. Here:
six photographs of a flawless hazelnut, which tiny-sd has never seen, and each configs/subject_*.toml. A classifier that
knows hazelnuts, tiny-features, counts the samples that show one, those that show the state in the prompt, and those
that still show what the model knew before.
"""

from pathlib import Path
from statistics import mean

import numpy as np

from border import read_table
from data import ImageSet, load
from data.generated.photographs import image
from data.output.grid import grid, save_image
from data.transforms import Transform, to_tensor
from evidence.results import Result, Runs
from evidence.steps import ROOT, SIDE, samples
from experiments.log import costs
from experiments.run import train
from experiments.settings import read_by_recipe
from experiments.table import Column
from metrics import networks
from metrics.statistics.nearest import authentic, copy_report, turned

IMAGES, SHOWN = 6, 3  # photographs of the subject; samples in a cell of the picture
WORD = {"textual_inversion": "<sks> nut"}  # the subject's name; sks nut where a config learns no word
SUBJECT = {  # prompt with the subject -> its class
    "a photo of a flawless {}": "hazelnut/good",
    "a photo of a {} with a crack": "hazelnut/crack",
    "a photo of a {} with a hole": "hazelnut/hole",
    "a photo of a {} with a print": "hazelnut/print",
}
OTHERS = {  # prompt with a product that tiny-sd knows -> its class
    "a photo of a flawless metal nut": "metal_nut/good",
    "a photo of a flawless bottle": "bottle/good",
    "a photo of a tile with a crack": "tile/crack",
}
PROMPTS = SUBJECT | OTHERS
QUICK = {"steps": 2, "class_images": 2, "sample_steps": 2}
SHARES = {
    "subject": "classified as a hazelnut where the prompt names a flawless one",
    "with a defect": "the same where the prompt names a defect, which none of the six photographs shows",
    "the defect": "of these, the state in the prompt among the five of a hazelnut (chance 0.20)",
    "others": "classified as the product in the prompt, one that tiny-sd knew before",
    "copies": "of the flawless ones those nearer to one of the six than the nearest 5 % of real hazelnuts are",
    "authentic": "those further from their nearest photograph than that is from another of the six",
}


def numbers(work: Path, quick: bool) -> dict:
    """method -> what each of its runs cost, and the shares of its samples by the names of SHARES; "real" likewise."""
    work, count = work.resolve() / "subject", 1 if quick else 8
    photographs = [image("hazelnut", "good", "few", i)[0] for i in range(IMAGES)]
    for i, photograph in enumerate(photographs):
        save_image(work / "images" / f"{i}.png", photograph)
    configs = {path.stem.removeprefix("subject_"): path for path in sorted(ROOT.glob("configs/subject_*.toml"))}
    classifier = Classifier(photographs, count)
    results, cells = {}, {"images": [np.concatenate(photographs[i : i + SHOWN], 1) for i in range(0, IMAGES, SHOWN)]}
    for method, config in {"before": None, **configs}.items():
        results[method] = []
        for seed in range(1 if quick else 3):
            run = work / f"{method}-{seed}"
            cost = learn(run, config, seed, quick) if config else {}
            images = sampled(method, run, seed, count, quick)
            results[method].append(cost | classifier.shares(images))
            if not seed:
                cells[method] = [np.concatenate(pixels[:SHOWN], 1) for pixels in images.values()]
    rows = [prompt.format("...") for prompt in PROMPTS]
    save_image(work.parent / "subject.png", grid(cells, rows, min_side=256))
    return results | {"real": [classifier.real]}


def learn(run: Path, config: Path, seed: int, quick: bool) -> dict:
    """Train by one config. What it cost: seconds of its steps, without pauses, and megabytes that it leaves."""
    settings = read_table(config) | {"data": str(run.parent / "images"), "seed": seed}
    if quick:
        settings |= read_by_recipe(settings, QUICK)
    took = costs(train(run, settings))
    return {"seconds": took["steps"] * took["step_seconds"], "megabytes": took["megabytes"]}


def sampled(method: str, run: Path, seed: int, count: int, quick: bool) -> dict[str, np.ndarray]:
    """Prompt -> its samples (`count`, S, S, 3), of tiny-sd itself for the method "before"."""
    prompts = [prompt.format(WORD.get(method, "sks nut")) for prompt in PROMPTS]
    source = {"model": "tiny-sd"} if method == "before" else {"run": run}
    return by_prompt(samples(run / "drawn", prompts, quick, prompt=prompts, seed=seed, count=count, **source))


def by_prompt(images: ImageSet) -> dict[str, np.ndarray]:
    """Prompt -> pixels of images whose classes are the prompts in their order."""
    return {prompt: images.pixels[images.labels.numpy() == i] for i, prompt in enumerate(PROMPTS)}


class Classifier:
    """The classes that tiny-features gives to images, and whether they are copies of the photographs."""

    def __init__(self, photographs: list[np.ndarray], count: int) -> None:
        self.network = networks.load_network("tiny-features")
        self.train = self.network.embed(turned(to_tensor(np.stack(photographs))))
        held_out = load(f"generated:hazelnut+metal_nut+bottle+tile/test/{count}", Transform(SIDE))
        of_class = {name: held_out.pixels[held_out.labels.numpy() == i] for i, name in enumerate(held_out.classes)}
        self.held_out = self.network.embed(to_tensor(of_class["hazelnut/good"]))
        self.real = self.shares({prompt: of_class[name] for prompt, name in PROMPTS.items()})

    def shares(self, images: dict[str, np.ndarray]) -> dict[str, float]:
        """Prompt -> images (N, S, S, 3) uint8: the shares of SHARES."""
        names, shares = self.network.classes, {key: [] for key in SHARES}
        states = [name for name in names if name.startswith("hazelnut/")]
        for prompt, pixels in images.items():
            x, wanted = to_tensor(pixels), PROMPTS[prompt]
            logits = self.network.logits(x)
            right = [names[i].split("/")[0] == wanted.split("/")[0] for i in logits.argmax(1)]
            if prompt in OTHERS:
                shares["others"] += right
            elif wanted == "hazelnut/good":
                f = self.network.embed(x)
                shares["subject"] += right
                shares["copies"] = [copy_report(f, self.held_out, self.train)["copies"]]
                shares["authentic"] = authentic(f, self.train, 8).tolist()
            else:
                shares["with a defect"] += right
                among = logits[:, [names.index(name) for name in states]].argmax(1)
                shares["the defect"] += [states[i] == wanted for i in among]
        return {key: mean(values) for key, values in shares.items()}


def result(numbers: dict) -> Result:
    """The statements, and the table."""
    runs = Runs([{"method": method} | row for method, rows in numbers.items() for row in rows])
    names = {x: x if x in ("before", "real") else f"`configs/subject_{x}.toml`" for x in numbers}
    costs = [Column("seconds", "seconds of training", ".0f"), Column("megabytes", "MB left")]
    terms = "; ".join(f"*{key}*: {meaning}" for key, meaning in SHARES.items())
    return Result(
        [
            runs.higher("DreamBooth shows the subject more often than LoRA", "subject", "dreambooth", "lora"),
            runs.higher("more often than Textual Inversion", "subject", "dreambooth", "textual_inversion"),
            runs.higher("DreamBooth copies more than LoRA", "copies", "dreambooth", "lora"),
            runs.higher("LoRA keeps more of the other products than full fine-tuning", "others", "lora", "full"),
            runs.higher("LoRA keeps more of them than DreamBooth", "others", "lora", "dreambooth"),
        ],
        "![Prompts in the rows, methods in the columns, the first seed.](evidence/subject.png)\n\n"
        + runs.table(names, costs + [Column(key, key) for key in SHARES])
        + f"\n{terms}. The seconds are those of the median step times the number of steps.\n",
    )

"""DreamBooth knows the new subject best and copies most; LoRA generalises; a new word comes only near.

Found by the logo study with Stable Diffusion 1.5 (DreamBooth, LoRA, Textual Inversion), and claimed for LoRA against
full fine-tuning in size, time and look. Here: six photographs of a flawless hazelnut, of which tiny-sd has seen none,
by each configs/subject_*.toml. A classifier that knows hazelnuts, tiny-features, says how many of the samples show
one, in the asked state, and what the model has forgotten.
"""

from pathlib import Path
from statistics import mean

import numpy as np

import compare
import sample
import train
from data import load
from data.generated.photographs import image
from data.output.grid import grid, save_image
from data.output.samples import GRID, read_samples
from data.transforms import Transform, to_tensor
from evidence import HERE, spread, table, verdicts
from metrics import networks
from metrics.statistics.nearest import authentic, copy_report, turned
from recipes import search

IMAGES, SHOWN = 6, 3  # photographs of the subject; samples in a cell of the picture
WORD = {"textual_inversion": "<sks> nut"}  # the subject's name; sks nut where a config learns no word
SUBJECT = {  # prompt about the subject -> the state it asks for
    "a photo of a flawless {}": "good",
    "a photo of a {} with a crack": "crack",
    "a photo of a {} with a hole": "hole",
    "a photo of a {} with a print": "print",
}
OTHERS = {  # prompt about something that tiny-sd knows -> its class
    "a photo of a flawless metal nut": "metal_nut/good",
    "a photo of a flawless bottle": "bottle/good",
    "a photo of a tile with a crack": "tile/crack",
}
COLUMNS = ("subject", "with a defect", "the defect", "others", "copies", "authentic")  # of the table


def numbers(work, quick):
    """method -> what each of its runs cost, and the shares of its samples by the names of COLUMNS; "real" likewise."""
    work, runs, count = work.resolve() / "subject", 1 if quick else 3, 1 if quick else 8
    photographs = [image("hazelnut", "good", "few", i)[0] for i in range(IMAGES)]
    for i, photograph in enumerate(photographs):
        save_image(work / "images" / f"{i}.png", photograph)
    configs = {path.stem.removeprefix("subject_"): path for path in sorted(HERE.parent.glob("configs/subject_*.toml"))}
    judge = Judge(photographs, count)
    found, cells = {}, {"images": [np.concatenate(photographs[i : i + SHOWN], 1) for i in range(0, IMAGES, SHOWN)]}
    for method, path in {"before": None, **configs}.items():
        found[method] = []
        for seed in range(runs):
            run = work / f"{method}-{seed}"
            cost = learn(path, run, seed, quick) if path else {}
            images = draw(method, run, seed, count, quick)
            found[method].append(cost | judge(images))
            if not seed:
                cells[method] = [np.concatenate(shown[:SHOWN], 1) for shown in images.values()]
    rows = [prompt.format("...") for prompt in SUBJECT | OTHERS]
    save_image(work.parent / "subject.png", grid(cells, rows, min_side=256))
    return found | {"real": [judge.real]}


def learn(path: Path, run: Path, seed: int, quick: bool) -> dict:
    """Train by one config, unless the run is there. What it cost: seconds of its steps, megabytes that it leaves."""
    if not search.finished(run):
        train.main(
            [
                str(path),
                "--data",
                str(run.parent / "images"),
                "--seed",
                str(seed),
                "--out",
                str(run),
                *(["--steps", "2", "--class_images", "2", "--sample_steps", "2"] if quick else []),
                *(["--resume"] if (run / "config.toml").exists() else []),
            ]
        )
    took = compare.cost(run)
    return {"seconds": took["steps"] * took["step_seconds"], "megabytes": took["megabytes"]}  # pauses do not count


def draw(method: str, run: Path, seed: int, count: int, quick: bool) -> dict[str, list[np.ndarray]]:
    """Prompt -> its images, `count` of them, drawn by sample.py unless they are there."""
    prompts = [prompt.format(WORD.get(method, "sks nut")) for prompt in SUBJECT | OTHERS]
    out = run / "drawn"
    if not (out / GRID).exists():
        source = ["--model", "tiny-sd"] if method == "before" else ["--run", str(run)]
        sample.main(
            [
                *source,
                *(f"--prompt={prompt}" for prompt in prompts),
                "--seed",
                str(seed),
                "--count",
                str(count),
                "--out",
                str(out),
                *(["--steps", "2"] if quick else []),
            ]
        )
    found = read_samples(out, Transform(64), prompts)
    return {prompt: list(found.pixels[found.labels.numpy() == i]) for i, prompt in enumerate(SUBJECT | OTHERS)}


class Judge:
    """What tiny-features takes images for, and whether they are copies of the photographs."""

    def __init__(self, photographs: list[np.ndarray], count: int):
        self.network = networks.load_network("tiny-features")
        self.train = self.network.embed(turned(to_tensor(np.stack(photographs))))
        held_out = load(f"generated:hazelnut+metal_nut+bottle+tile/test/{count}", Transform(64))
        chosen = {name: held_out.pixels[held_out.labels.numpy() == i] for i, name in enumerate(held_out.classes)}
        self.held_out = self.network.embed(to_tensor(chosen["hazelnut/good"]))
        self.real = self({prompt: list(chosen[wanted(prompt)]) for prompt in SUBJECT | OTHERS})

    def __call__(self, images: dict[str, list[np.ndarray]]) -> dict:
        """Shares of the images, by the names of COLUMNS (see `section`)."""
        names, shares = self.network.classes, {key: [] for key in COLUMNS}
        states = [name for name in names if name.startswith("hazelnut/")]
        for prompt, shown in images.items():
            x = to_tensor(np.stack(shown))
            logits, product = self.network.logits(x), wanted(prompt).split("/")[0]
            right = [names[i].split("/")[0] == product for i in logits.argmax(1)]
            if prompt in OTHERS:
                shares["others"] += right
            elif SUBJECT[prompt] == "good":
                f = self.network.embed(x)
                shares["subject"] += right
                shares["copies"] = [copy_report(f, self.held_out, self.train)["copies"]]
                shares["authentic"] = authentic(f, self.train, 8).tolist()
            else:
                shares["with a defect"] += right
                among = logits[:, [names.index(name) for name in states]].argmax(1)
                shares["the defect"] += [states[i] == wanted(prompt) for i in among]
        return {key: mean(values) for key, values in shares.items()}


def wanted(prompt: str) -> str:
    """The class that a prompt asks for."""
    return OTHERS.get(prompt) or f"hazelnut/{SUBJECT[prompt]}"


def section(found):
    def name(method):
        return method if method in ("before", "real") else f"`configs/subject_{method}.toml`"

    def cost(method, key, digits):
        return "" if method in ("before", "real") else f"{mean(run[key] for run in found[method]):.{digits}f}"

    lines = [
        [
            name(method),
            cost(method, "seconds", 0),
            cost(method, "megabytes", 2),
            *(spread([run[key] for run in runs]) for key in COLUMNS),
        ]
        for method, runs in found.items()
    ]
    share = {key: {method: [run[key] for run in runs] for method, runs in found.items()} for key in COLUMNS}
    subject, others, copies = share["subject"], share["others"], share["copies"]
    return (
        "![Prompts in the rows, methods in the columns, the first seed.](evidence/subject.png)\n\n"
        + table(["", "seconds of training", "MB left", *COLUMNS], lines)
        + """
*subject*: taken for a hazelnut where the prompt asks for a flawless one; *with a defect*: the same where it asks for a
defect, which none of the six photographs shows; *the defect*: of these, the asked state among the five of a hazelnut
(chance 0.20); *others*: taken for the asked product where the prompt names one that tiny-sd knew before; *copies*: of
the flawless ones those nearer to a photograph of the six than the nearest 5 % of real hazelnuts are; *authentic*: those
further from their nearest photograph than that is from another of the six. The seconds are those of the median step
times their number.
"""
        + verdicts(
            {
                "DreamBooth shows the subject more often than LoRA": (subject["dreambooth"], subject["lora"]),
                "more often than a new word": (subject["dreambooth"], subject["textual_inversion"]),
                "DreamBooth copies more than LoRA": (copies["dreambooth"], copies["lora"]),
                "LoRA keeps more of what the model knew than full fine-tuning": (others["lora"], others["full"]),
                "LoRA keeps more of it than DreamBooth": (others["lora"], others["dreambooth"]),
            }
        )
    )

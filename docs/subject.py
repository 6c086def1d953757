"""A new subject from 6 images: `python docs/subject.py` teaches it to tiny-sd in several ways and compares them.

The subject is the hazelnut, of which tiny-sd has seen none: 6 photographs, none with a defect. Every
configs/subject_*.toml trains on them with several seeds and draws the same prompts. A classifier that knows hazelnuts,
tiny-features, says how many of the samples show the subject, in the asked state, and what the model has forgotten.
Writes docs/subject.md, .json and .png (prompts in the rows, methods in the columns). What --work holds already is not
trained or drawn again.
"""
import json
import os
import sys
from dataclasses import dataclass
from datetime import date
from pathlib import Path
from statistics import mean, median

import numpy as np
import torch
from full_size import ROOT, machine  # which puts the package on the path

import launch
import sample
import train
from data import load
from data.atomic import write_atomic
from data.drawn import file_names
from data.generated import image
from data.grid import grid, save_image
from data.images import decode
from data.transforms import Transform, to_tensor
from metrics import features
from metrics.nearest import copy_report, turned

IMAGES, SHOWN = 6, 3   # photographs of the subject; samples in a cell of the picture
WORD = {"textual_inversion": "<sks> nut"}   # the subject's name; sks nut where a config learns no word
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
COLUMNS = ("subject", "with a defect", "the defect", "others", "copies")   # of the table


@dataclass
class Config:
    work: str = "runs/subject"  # folder of the runs
    model: str = "tiny-sd"  # a Stable Diffusion
    seeds: int = 3  # runs of each method
    count: int = 8  # images of each prompt
    out: str = "docs/subject.md"  # the page; the picture lies beside it


def main(argv=None):
    cfg, load_before = launch.configure(Config, argv), os.getloadavg()[0]
    work, out = Path(cfg.work), Path(cfg.out)
    photographs = [image("hazelnut", "good", "few", i)[0] for i in range(IMAGES)]
    (work / "images").mkdir(parents=True, exist_ok=True)
    for i, photograph in enumerate(photographs):
        save_image(work / "images" / f"{i}.png", photograph)
    configs = {path.stem.removeprefix("subject_"): path for path in sorted(ROOT.glob("configs/subject_*.toml"))}
    judge = Judge(photographs, cfg.count)
    table, cells = {}, {"images": [np.concatenate(photographs[i:i + SHOWN], 1) for i in range(0, IMAGES, SHOWN)]}
    for method, path in {"before": None, **configs}.items():
        table[method] = []
        for seed in range(cfg.seeds):
            run = work / f"{method}-{seed}"
            numbers = learn(cfg, path, run, seed) if path else {}
            drawn = draw(cfg, method, run, seed)
            table[method].append(numbers | judge(drawn))
            if not seed:
                cells[method] = [np.concatenate(images[:SHOWN], 1) for images in drawn.values()]
    rows = [prompt.format("...") for prompt in SUBJECT | OTHERS]
    save_image(out.with_suffix(".png"), grid(cells, rows, min_side=256))
    write_atomic(out.with_suffix(".json"), json.dumps(table, indent=1).encode() + b"\n")
    write_atomic(out, page(cfg, table, judge.real, load_before).encode())


def learn(cfg, path: Path, run: Path, seed: int) -> dict:
    """Train by one config, unless the run is there. What it cost: seconds of its steps, bytes that it leaves."""
    left = [run / "adapter.safetensors", run / "model"]
    if not any(file.exists() for file in left):
        train.main([str(path), "--model", cfg.model, "--data", str(run.parent / "images"), "--seed", str(seed),
                    "--out", str(run), *(["--resume"] if (run / "config.toml").exists() else [])])
    lines = [json.loads(line) for line in (run / "log.jsonl").read_text().splitlines()]
    at = [line["seconds"] for line in lines if "seconds" in line]
    seconds = len(at) * median(after - before for before, after in zip(at, at[1:]))   # pauses do not count
    files = [file for top in left for file in ([top] if top.is_file() else top.rglob("*")) if file.is_file()]
    return {"seconds": seconds, "bytes": sum(file.stat().st_size for file in files)}


def draw(cfg, method: str, run: Path, seed: int) -> dict[str, list[np.ndarray]]:
    """Prompt -> its images, cfg.count of them, drawn by sample.py unless they are there."""
    word = WORD.get(method, "sks nut")
    prompts = [prompt.format(word) for prompt in SUBJECT | OTHERS]
    out = run / "drawn"
    if not (out / "grid.png").exists():
        source = ["--model", cfg.model] if method == "before" else ["--run", str(run)]
        sample.main([*source, *(part for prompt in prompts for part in ("--prompt", prompt)), "--seed", str(seed),
                     "--count", str(cfg.count), "--out", str(out)])
    files = sorted(out.glob("*_[0-9][0-9][0-9].png"))
    names = file_names(prompts)
    return {prompt: [decode(file) for file in files if file.name[:-8] == name]
            for prompt, name in zip(SUBJECT | OTHERS, names)}


class Judge:
    """What tiny-features takes images for, and whether they are copies of the photographs."""

    def __init__(self, photographs: list[np.ndarray], count: int):
        self.network, self.names = features.load(ROOT / "weights" / "tiny-features" / "model.safetensors")
        self.train = self.embed(turned(to_tensor(np.stack(photographs))))[0]
        held_out = load(f"generated:hazelnut+metal_nut+bottle+tile/test/{count}", Transform(64))
        chosen = {name: held_out.pixels[held_out.labels.numpy() == i] for i, name in enumerate(held_out.classes)}
        self.held_out = self.embed(to_tensor(chosen["hazelnut/good"]))[0]
        real = {prompt: list(chosen[wanted(prompt)]) for prompt in SUBJECT | OTHERS}
        self.real = self(real)

    def embed(self, x):
        return features.embed(self.network.eval(), x)

    def __call__(self, images: dict[str, list[np.ndarray]]) -> dict:
        """Shares of the images, by the names of the table's columns (see `page`)."""
        plain, marked, state, others = [], [], [], []
        states = [name for name in self.names if name.startswith("hazelnut/")]
        for prompt, shown in images.items():
            f, logits = self.embed(to_tensor(np.stack(shown)))
            product = wanted(prompt).split("/")[0]
            right = [self.names[i].split("/")[0] == product for i in logits.argmax(1)]
            if prompt in OTHERS:
                others += right
            elif SUBJECT[prompt] == "good":
                plain += right
                copies = copy_report(f, self.held_out, self.train)["copies"]
            else:
                marked += right
                among = logits[:, [self.names.index(name) for name in states]].argmax(1)
                state += [states[i] == wanted(prompt) for i in among]
        return dict(zip(COLUMNS, (mean(plain), mean(marked), mean(state), mean(others), copies)))


def wanted(prompt: str) -> str:
    """The class that a prompt asks for."""
    return OTHERS.get(prompt) or f"hazelnut/{SUBJECT[prompt]}"


def page(cfg, table: dict, real: dict, load_before: float) -> str:
    """The page: machine, what was done, and the mean and range over the seeds of each number."""
    made = {"threads": torch.get_num_threads(),
            "precision": "bfloat16 autocast" if launch.bf16("auto", torch.device("cpu")) else "float32"}
    lines = [f"# A new subject from {IMAGES} images\n\n`python docs/subject.py{flags(cfg)}` on {date.today()}:\n",
             *machine(made, load_before),
             f"- {cfg.seeds} runs of each config with seeds of their own, {cfg.count} samples of each prompt\n",
             "![Prompts in the rows, methods in the columns, the first seed.](subject.png)\n",
             f"| | seconds of training | left on disk, MB | {' | '.join(COLUMNS)} |",
             "|---|---:|---:|" + "---:|" * len(COLUMNS)]
    for method, runs in table.items():
        cost = [f"{mean(run['seconds'] for run in runs):.0f}", f"{runs[0]['bytes'] / 1e6:.2f}"] if method != "before" \
            else ["", ""]
        lines.append(row(method if method == "before" else f"`configs/subject_{method}.toml`", cost, runs))
    lines.append(row("real photographs", ["", ""], [real]))
    return "\n".join(lines) + """

Shares of the samples, by tiny-features: *subject*, taken for a hazelnut where the prompt asks for a flawless one; *with
a defect*, the same where it asks for a defect, which none of the six photographs shows; *the defect*, of these, the
asked state among the five of a hazelnut (chance 0.20); *others*, taken for the asked product where the prompt names one
that tiny-sd knew before; *copies*, of the flawless ones those nearer to a photograph of the six than the nearest 5 % of
real hazelnuts are. In brackets the smallest and largest of the runs.
The seconds are those of the median step times their number, beside other work on this machine.
"""


def row(name: str, cost: list[str], runs: list[dict]) -> str:
    """A line of the table."""
    def spread(key):
        values = [run[key] for run in runs]
        return f"{mean(values):.2f}" + (f" ({min(values):.2f} to {max(values):.2f})" if len(values) > 1 else "")
    return f"| {' | '.join([name, *cost, *map(spread, COLUMNS)])} |"


def flags(cfg) -> str:
    """The flags that are not at their defaults, save for folders."""
    other = [name for name in ("seeds", "count") if getattr(cfg, name) != getattr(Config, name)]
    return "".join(f" --{name} {getattr(cfg, name)}" for name in other)


if __name__ == "__main__":
    try:
        main()
    except (ValueError, OSError) as error:
        sys.exit(f"error: {error}")

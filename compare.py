"""Compare methods on the same few images: python compare.py CONFIG.toml [--flag value]...

The config says in the flags of train.py and sample.py what all share and what each method changes:

    seeds = 3                                    # runs of each method
    real = "generated:hazelnut/test/20"          # images that none of them trains on
    [train]                                      # every run
    data = "generated:hazelnut/few/20"
    [sample]                                     # every drawing
    count = 20
    [methods.lora]                               # one row of the table
    adapter = ["lora:rank=8"]
    [methods.fast]                               # {lora} is the run of lora with the same seed
    recipe = "consistency"
    init = ["{lora}/adapter.safetensors"]
    [ways.unguided]                              # optional: several ways to draw every method, or those named by `of`
    guidance = 1.0
    of = ["lora"]
    [scorers]                                    # optional: functions of the samples, see metrics/statistics/scores.py
    logo = "docs/logo_scorer.py:score"
    [asked]                                      # of a text model: prompt = class that its samples are compared with
    "a photo of a sks nut with a crack" = "hazelnut/crack"

Every run is a process of its own, one after the other, in OUT/METHOD-SEED; what is finished there is not done again.
Writes index.html (one file, with the pictures), table.md and numbers.json into --out.
"""

import json
import sys
import tomllib
from dataclasses import dataclass, field, replace
from pathlib import Path
from statistics import median

import torch

import launch
import sample
import train
from data import ImageSet, load
from data.output.atomic import write_atomic
from data.output.samples import GRID, read_samples, smallest_side
from data.source import classes_of
from data.transforms import Transform
from metrics import networks
from metrics.report import html, markdown
from metrics.statistics.scores import load_scorer, means
from metrics.table import measure
from ops.device import choose_device
from recipes import search

QUICK = {"train": {"steps": 20, "sample_every": 20, "sample_steps": 5, "count": 1}, "sample": {"steps": 5, "count": 2}}


@dataclass
class Config:
    out: str = ""  # folder of runs and results; empty: runs/ and the config's name
    seeds: int = 0  # runs of each method; 0: as the config says
    quick: bool = False  # 20 steps, 1 seed, 2 samples of each: does everything run
    features: str = "tiny-features"  # network that the numbers are measured in: see evaluate.py


@dataclass
class Plan:
    """What a config says; the module's docstring explains the fields."""

    methods: dict[str, dict]
    real: str
    seeds: int = 3
    train: dict = field(default_factory=dict)
    sample: dict = field(default_factory=dict)
    ways: dict[str, dict] = field(default_factory=lambda: {"": {}})
    scorers: dict[str, str] = field(default_factory=dict)
    asked: dict[str, str] = field(default_factory=dict)


def main(argv=None):
    argv = list(sys.argv[1:] if argv is None else argv)
    path = argv.pop(0) if argv and not argv[0].startswith("-") else ""
    cfg = launch.configure(Config, argv)
    if not path:
        raise ValueError("name a config, as in python compare.py configs/compare_methods.toml")
    plan = read(path)
    plan.seeds = cfg.seeds or plan.seeds
    out = Path(cfg.out or f"runs/{Path(path).stem}")
    compare(shortened(plan) if cfg.quick else plan, out, cfg.features)
    print(f"index.html, table.md and numbers.json are in {out}")


def compare(plan: Plan, out: Path, features: str = "tiny-features") -> list[dict]:
    """Train, draw, measure: a dict of numbers for each method, way and seed, which are in out/numbers.json too."""
    out, rows, pictures, real = out.resolve(), [], {}, None
    network, judge = networks.load_network(features, choose_device("auto")), networks.load_network("tiny-features")
    scorers = {name: load_scorer(text) for name, text in plan.scorers.items()}
    for method in plan.methods:
        for seed in range(plan.seeds):
            run = trained(plan, out, method, seed)
            for way in ways_of(plan, method):
                folder = drawn(plan, run, way, seed)
                if real is None:  # at the size of the samples
                    transform = Transform(smallest_side(folder))
                    told = launch.configure(train.Config, flags(settings(plan, out, method, seed)))
                    real, few = load(plan.real, transform), load(told.data, transform)
                fake = samples(plan, folder, transform, real)
                numbers = measure(network, fake, real, few, judge)
                found = {
                    f"{name}, {key}": value
                    for name, scorer in scorers.items()
                    for key, value in means(scorer(fake.pixels)).items()
                }
                rows.append({"method": method, "way": way, "seed": seed} | cost(run) | numbers | {"scores": found})
                pictures.setdefault(", ".join(filter(None, (method, way))), folder / GRID)
            write_atomic(out / "numbers.json", json.dumps(rows, indent=1).encode() + b"\n")
    write_atomic(out / "table.md", markdown(rows).encode())
    write_atomic(out / "index.html", html(rows, pictures, out.name, protocol(plan, network, rows)).encode())
    return rows


def read(path) -> Plan:
    """The plan in a TOML file. ValueError for a key that it does not know, there or in train.py or sample.py."""
    try:
        table = tomllib.loads(Path(path).read_text())
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise ValueError(f"config file {path}: {error}") from error
    kinds = {"seeds": int, "real": str}
    for key, value in table.items():
        launch.field_type(Plan, key, f"{path}: ")
        if type(value) is not kinds.get(key, dict):
            raise ValueError(f"{path}: {key} must be {kinds.get(key, dict).__name__}, found {value!r}")
    if not table.get("methods") or not table.get("real"):
        raise ValueError(f"{path}: expected real, images that are not trained on, and at least one [methods.NAME]")
    for kind in ("methods", "ways"):
        for name, value in table.get(kind, {}).items():
            if not isinstance(value, dict):
                raise ValueError(f"{path}: {kind} must be tables of settings, found {value!r} for {name!r}")
            for method in value.get("of", []) if kind == "ways" else []:
                if method not in table["methods"]:
                    raise ValueError(f"{path}: way {name!r} is of {method!r}, which is no method")
    plan = Plan(**table)
    try:
        for method in plan.methods:
            launch.read_flags(train.Config, flags(settings(plan, Path(), method, 0)))
        for way in plan.ways:
            launch.read_flags(sample.Config, flags(drawing(plan, way)))
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from None
    return plan


def shortened(plan: Plan) -> Plan:
    """The same plan with a few steps, one seed and two samples of each."""
    short = {
        name: values | QUICK["train"] | ({"class_images": 2} if "class_images" in plan.train | values else {})
        for name, values in plan.methods.items()
    }
    ways = {name: values | QUICK["sample"] for name, values in plan.ways.items()}
    return replace(plan, methods=short, seeds=1, ways=ways)


def settings(plan: Plan, out: Path, method: str, seed: int) -> dict:
    """What train.py is told for one run."""
    runs = {name: str(out / f"{name}-{seed}") for name in plan.methods}

    def filled(value):
        if isinstance(value, list):
            return [filled(item) for item in value]
        for name, run in runs.items():
            value = value.replace(f"{{{name}}}", run) if isinstance(value, str) else value
        return value

    shared = {"seed": seed, "measure": 0} | plan.train | plan.methods[method]
    return {name: filled(value) for name, value in shared.items()}


def ways_of(plan: Plan, method: str) -> list[str]:
    """The ways that a method is drawn in."""
    return [name for name, way in plan.ways.items() if method in way.get("of", plan.methods)]


def drawing(plan: Plan, way: str) -> dict:
    """What sample.py is told for one way."""
    return plan.sample | {key: value for key, value in plan.ways[way].items() if key != "of"}


def flags(values: dict) -> list[str]:
    """{"adapter": ["norm"], "lr": 0.1} -> ["--adapter=norm", "--lr=0.1"]."""
    return [
        f"--{name}={item}" for name, value in values.items() for item in (value if isinstance(value, list) else [value])
    ]


def trained(plan: Plan, out: Path, method: str, seed: int) -> Path:
    """The finished run of a method, trained as far as it is not. ValueError with its last line if it fails."""
    run = out / f"{method}-{seed}"
    out.mkdir(parents=True, exist_ok=True)
    search.write_settings(run, settings(plan, out, method, seed))
    if not search.finished(run):
        print(f"training {run.name}", flush=True)
        if stopped := search.train(run):
            sys.exit(128 + stopped[0])
    if not search.finished(run):
        raise ValueError(f"{run.name}: {Path(f'{run}.error').read_text()} (all that it printed: {run}.log)")
    return run


def drawn(plan: Plan, run: Path, way: str, seed: int) -> Path:
    """The folder of a run's samples, drawn by sample.py unless its overview, which is written last, is there."""
    folder = run / ("drawn" + (f"-{way}" if way else ""))
    if not (folder / GRID).exists():
        what = {"prompt": list(plan.asked)} if plan.asked else {"classes": ",".join(classes_of(plan.real))}
        told = {"run": str(run), "seed": seed, "out": str(folder)} | what | drawing(plan, way)
        sample.main(flags(told))
    return folder


def samples(plan: Plan, folder: Path, transform: Transform, real: ImageSet) -> ImageSet:
    """The samples of a folder with the classes of the real images: those that were drawn, or that plan.asked names."""
    shown = read_samples(folder, transform, list(plan.asked) or real.classes)
    wanted = [plan.asked.get(name, name) for name in shown.classes]
    if unknown := [name for name in wanted if name not in real.classes]:
        raise ValueError(f"asked: {unknown[0]!r} is no class of {plan.real}, which has {', '.join(real.classes)}")
    labels = torch.tensor([real.classes.index(name) for name in wanted])[shown.labels]
    return shown._replace(labels=labels, classes=real.classes)


def cost(run: Path) -> dict:
    """What a run took, by its log, and what it leaves for drawing."""
    lines = [json.loads(line) for line in (run / "log.jsonl").read_text().splitlines()]
    seconds = [line["seconds"] for line in lines if "seconds" in line]
    steps = [after - before for before, after in zip(seconds, seconds[1:]) if after >= before]  # resumed: from 0
    left = [run / name for name in search.LEFT if (run / name).exists()]
    files = [file for path in left for file in ([path] if path.is_file() else path.rglob("*")) if file.is_file()]
    told = {key: line[key] for line in lines for key in ("trained", "total", "peak_gib") if key in line}
    return told | {
        "steps": len(seconds),
        "step_seconds": median(steps) if steps else None,
        "megabytes": sum(file.stat().st_size for file in files) / 1e6,
    }


def protocol(plan: Plan, network, rows: list[dict]) -> str:
    """One sentence on what was measured against what."""
    first = rows[0]
    return (
        f"{plan.seeds} runs of each method; {first['samples']} samples of each against {first['real']} held-out "
        f"images ({plan.real}), {first['train']} training images; features of {network.name}. In brackets the "
        f"smallest and the largest of the runs."
    )


if __name__ == "__main__":
    try:
        main()
    except (ValueError, OSError) as error:
        sys.exit(f"error: {error}")

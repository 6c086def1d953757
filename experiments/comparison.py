"""A whole comparison: train every method with every seed, sample every variant, measure, write tables and page."""

from pathlib import Path

import torch

from border import to_json
from data import ImageSet, load
from data.output.atomic import write_atomic
from data.output.samples import GRID, read_samples, smallest_side
from data.source import classes_of
from data.transforms import Transform, to_tensor
from experiments.log import costs, seconds_a_picture
from experiments.page import html
from experiments.plan import Plan
from experiments.run import is_finished, sample_once, train
from experiments.settings import base_model, training_images
from experiments.table import markdown
from metrics import networks
from metrics.alignment.scores import load_scorer, means
from metrics.alignment.styles import shares
from metrics.alignment.subject import drift
from metrics.table import measure_in
from metrics.textures.table import PATCHES, features_of
from ops.device import choose_device


def compare(plan: Plan, out: Path, features: str = "") -> list[dict]:
    """Train, sample, measure: a dict of numbers for each method, variant and seed, also written to out/numbers.json.

    features: what the numbers are measured in, as for evaluate.py: a network, or patches of the images.
    """
    out, rows, grids, real = out.resolve(), [], {}, None
    features, device = features_of(features, plan.real), choose_device("auto")
    network = None if features == PATCHES else networks.load_network(features, device)
    kept, judge = network or networks.load_network("pixels", device), networks.load_network("tiny-features")
    styles = networks.load_network(plan.styles["network"], device) if plan.styles else None
    scorers = {name: load_scorer(text) for name, text in plan.scorers.items()}
    for method in plan.methods:
        for seed in range(plan.seeds):
            run = train_method(plan, out, method, seed)
            for variant in plan.variants_of(method):
                folder = sample_variant(plan, run, variant, seed)
                if real is None:  # at the size of the samples
                    transform = Transform(smallest_side(folder))
                    few = load(training_images(plan.train_settings(out, method, seed)), transform)
                    real = load(plan.real, transform)
                samples = samples_of(plan, folder, transform, real)
                scores = {
                    f"{name}, {key}": value
                    for name, scorer in scorers.items()
                    for key, value in means(scorer(samples.pixels)).items()
                }
                numbers = measure_in(network, samples, real, few, judge)
                numbers = costs(run) | seconds_a_picture(folder, len(samples.pixels)) | numbers | {"scores": scores}
                if styles is not None:
                    numbers["styles"] = shares(styles, to_tensor(samples.pixels), plan.styles)
                if plan.unrelated:
                    numbers |= drift_of(plan, out, run, method, seed, kept)
                rows.append({"method": method, "variant": variant, "seed": seed} | numbers)
                grids.setdefault(", ".join(filter(None, (method, variant))), folder / GRID)
            write_atomic(out / "numbers.json", to_json(rows, indent=1).encode() + b"\n")
    write_atomic(out / "table.md", markdown(rows).encode())
    write_atomic(out / "index.html", html(rows, grids, out.name, protocol(plan, rows[0])).encode())
    return rows


def train_method(plan: Plan, out: Path, method: str, seed: int) -> Path:
    """The finished run of a method and a seed, OUT/METHOD-SEED. Raises as experiments.run.train does."""
    run = out / f"{method}-{seed}"
    out.mkdir(parents=True, exist_ok=True)
    if not is_finished(run):
        print(f"training {run.name}", flush=True)
    return train(run, plan.train_settings(out, method, seed))


def sample_variant(plan: Plan, run: Path, variant: str, seed: int) -> Path:
    """The folder of a run's samples: all prompts of the plan, or all classes of its real images."""
    content = {"prompt": list(plan.classes_of_prompts)}
    if not plan.classes_of_prompts:
        content = {"classes": ",".join(classes_of(plan.real))}
    folder = run / ("drawn" + (f"-{variant}" if variant else ""))
    return sample_once(folder, {"run": str(run), "seed": seed} | content | plan.sample_settings(variant))


def drift_of(plan: Plan, out: Path, run: Path, method: str, seed: int, network: networks.Network) -> dict:
    """How much a run changed the pictures of the plan's unrelated prompts, of the same seeds as the base's."""
    settings = {"prompt": plan.unrelated, "seed": seed} | plan.sample_settings(next(iter(plan.variants)))
    base = base_model(plan.train_settings(out, method, seed))
    before = sample_once(out / f"unrelated-{Path(base).name}-{seed}", {"model": base} | settings)
    after = sample_once(run / "unrelated", {"run": str(run)} | settings)
    transform = Transform(smallest_side(after))
    pictures = [read_samples(folder, transform, plan.unrelated).pixels for folder in (before, after)]
    return drift(*(network.embed(to_tensor(pixels)) for pixels in pictures))


def samples_of(plan: Plan, folder: Path, transform: Transform, real: ImageSet) -> ImageSet:
    """The samples of a folder with the classes of the real images: their own, or those of their prompts.

    ValueError for a prompt whose class none of the real images has.
    """
    samples = read_samples(folder, transform, list(plan.classes_of_prompts) or real.classes)
    classes = [plan.classes_of_prompts.get(name, name) for name in samples.classes]
    if unknown := [name for name in classes if name not in real.classes]:
        raise ValueError(
            f"classes_of_prompts: {unknown[0]!r} is no class of {plan.real}, which has {', '.join(real.classes)}"
        )
    labels = torch.tensor([real.classes.index(name) for name in classes])[samples.labels]
    return samples._replace(labels=labels, classes=real.classes)


def protocol(plan: Plan, row: dict) -> str:
    """Two sentences on what was measured against what."""
    return (
        f"{plan.seeds} runs of each method; {row['samples']} samples of each against {row['real']} held-out "
        f"images ({plan.real}), {row['train']} training images; measured in {row['network']}. In brackets the "
        f"smallest and the largest of the runs."
    )

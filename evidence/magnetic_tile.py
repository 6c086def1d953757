"""Synthetic defects raise a classifier of real ones: photographs of magnetic tiles (Huang et al. 2018).

What defect studies hope for: a generator that knows the product is shown few images of new defects, and a classifier
learns more from these and the generator's images together. Here: tiny-dit, all of it, learns tiles that are free of
defects, frayed or uneven, then blowhole, break and crack from six photographs each of three tiles. The defects of the
six are cut out along their masks, turned, scaled and moved onto defect-free photographs; noised a little and drawn
again by the generator (image to image), whose defect takes the place of the moved one. Logistic regression on what
tiny-features sees (metrics/downstream/linear.py) learns from all real photographs of the four classes that the generator has seen,
and from these squares, which have a tenth of the loss.

Arms beside them: `real + moved` leaves the generator out; `real + altered` has the real squares again, scaled, moved,
lightened and covered in part; `real + shuffled` has the drawn ones with wrong labels; `more real` has the photographs
of further tiles. Duplicates are no arm: every class of a source weighs the same, so that the minimum stays.

No tile is on two sides: one was photographed up to six times and more, and a split by image would show the probe the
defects that it is tested on. Settings were chosen on tiles of the training side, among many variants: of moving, of the
share, of the strength (above 0.2 the generator washes defects out, and less was gained). The test's tiles were looked
at before: by three arms of a network trained whole, which was given up, and by an earlier form of these arms, which
moved defects less, kept what the generator drew around them and gained nothing. Needs the photographs, --photographs.
"""

import json
from pathlib import Path
from statistics import mean

import numpy as np
import torch
from PIL import Image

import train
import weights
from data.output.atomic import write_atomic
from data.transforms import to_tensor, to_uint8
from evidence import HERE, spread, table
from evidence.tiles import Moved, Photo, crops, few_shot, laid, moved, read, split
from metrics.downstream.gain import altered, gain, recalls
from metrics.downstream.linear import linear_probe, views
from metrics.networks import features
from ops.device import autocast
from ops.random import fold_in, generator_for
from sampling import batched_cfg, dit_schedule, sample_latents

FEW = ("blowhole", "break", "crack")  # the classes shown in few photographs
CLASSES = ["blowhole", "break", "crack", "free"]  # those that the probe tells apart
DRAWS, TILES, SHOTS = 6, 3, 6  # draws of few-shot data; tiles and photographs of each class in one
CROPS = {"base": 6, "few": 8, "test": 4}  # squares out of each photograph
COUNT = 160  # synthetic images of each class
BOTH = ["--adapter", "full", "--rotations", "0", "--measure", "0", "--count", "3", "--sample-steps", "20"]
BASE = ["--model", "tiny-dit", "--steps", "900", "--lr", "4e-4", "--warmup", "50", "--ema", "0.995"]
FEW_SHOT = ["--steps", "250", "--lr", "3e-4", "--ema", "0.98", "--mask-weight", "4"]
STRENGTH, STEPS, GUIDANCE, BATCH = 0.2, 24, 1.5, 32  # of drawing again
SHARE = 0.1  # of the loss that the second source of an arm has
CONTRAST = 0.35  # standard deviation of every square that the probe sees


def numbers(work: Path, quick: bool, data: str, part: str = "test") -> dict:
    """The recalls of every arm and draw, {arm: [recalls of CLASSES, ...]}, and what there was.

    data: the folder of photographs; part: those that the probe is tested on, or "val", which settings were chosen on.
    """
    work, short = work.resolve() / "magnetic_tile", ["--steps", "5"] if quick else []
    parts = split(read(data), FEW)
    base = [p for p in parts["train"] if p.label not in FEW]
    free = [p for p in base if p.label == "free"]
    model = learn(work / "base", cut(work / "crops-base", {CROPS["base"]: base}), BASE + short) / "model.safetensors"
    found = {"part": part, "arms": {}, "images": counts(parts)}
    for seed in range(1 if quick else DRAWS):
        pairs = [few_shot(parts["train"], label, TILES, SHOTS, seed) for label in FEW]
        few, others = ([p for pair in pairs for p in pair[i]] for i in (0, 1))
        shots = cut(work / f"crops-few-{seed}", {CROPS["few"]: few, 1: free[seed::3]})
        run = learn(work / f"few-{seed}", shots, [*FEW_SHOT, "--model", str(model), *short], seed)
        shifted, drawn, labels = synthetic(run, few, free, seed)
        real = [torch.cat(pair) for pair in zip(squares(few, CROPS["few"]), squares(free, CROPS["base"]))]
        held_out = [p for p in (parts["test"] if part == "test" else parts["val"] + others) if p.label in CLASSES]
        mixed = labels[torch.randperm(len(labels), generator=generator_for(seed))]
        arms = {
            "real": [real],
            "real + altered": [real, (altered(real[0], generator_for(seed)), real[1])],
            "real + moved": [real, (shifted, labels)],
            "real + drawn again": [real, (drawn, labels)],
            "real + shuffled": [real, (drawn, mixed)],
            "moved": [(shifted, labels)],
            "drawn again": [(drawn, labels)],
        }
        if part == "test":  # the real photographs that settings were chosen on
            arms["more real"] = [[torch.cat(pair) for pair in zip(squares(others, CROPS["few"]), real)]]
        for name, values in judged(run, part, arms, squares(held_out, CROPS["test"])).items():
            found["arms"].setdefault(name, []).append(values)
    return found


def judged(run: Path, part: str, arms: dict, held_out) -> dict[str, list[float]]:
    """Arm -> the recalls of CLASSES by the linear probe; read from the run's folder if they are there."""
    stored = run / f"recalls-{part}.json"
    if stored.exists():
        return json.loads(stored.read_text())
    network, _ = features.load_classifier(HERE.parent / "weights" / "tiny-features" / "model.safetensors")
    found, seen = {}, {}
    for name, sources in arms.items():
        for x, y in sources:
            seen[id(x)] = seen[id(x)] if id(x) in seen else views(network, x, y)[0]  # (8 N, D)
        shares = [1 - SHARE, SHARE] if len(sources) > 1 else [1.0]
        probe = linear_probe(network, [(seen[id(x)], y.repeat(8)) for x, y in sources], shares, len(CLASSES))
        found[name] = recalls(probe, *held_out, len(CLASSES))
        print(f"{run.name}, {name}: {mean(found[name]):.3f}", flush=True)
    write_atomic(stored, json.dumps(found).encode())
    return found


def cut(folder: Path, photos: dict[int, list[Photo]]) -> Path:
    """The folder of crops and their masks, written unless it is there. photos: crops of each -> photographs."""
    if folder.exists():
        return folder
    part = folder.with_suffix(".part")
    for photo, count in ((photo, count) for count, some in photos.items() for photo in some):
        for i, planes in enumerate(crops(photo, count)):
            for kind, end, plane in zip(("image", "mask"), ("", "_mask"), planes):
                file = part / "tile" / kind / photo.label / f"{photo.path.stem}-{i}{end}.png"
                file.parent.mkdir(parents=True, exist_ok=True)
                Image.fromarray(plane).save(file)
    return part.rename(folder)


def squares(photos: list[Photo], count: int) -> tuple[torch.Tensor, torch.Tensor]:
    """`count` crops of each photograph as the probe sees them, and their labels (N,)."""
    pixels = np.stack([image for photo in photos for image, _ in crops(photo, count)])  # (N, S, S)
    labels = [CLASSES.index(photo.label) for photo in photos for _ in range(count)]
    return lit(to_tensor(colours(pixels))), torch.tensor(labels)


def colours(pixels: np.ndarray) -> np.ndarray:
    """(N, S, S) -> (N, S, S, 3)."""
    return np.repeat(pixels[..., None], 3, 3)


def lit(x: torch.Tensor) -> torch.Tensor:
    """Images (N, 3, S, S) made grey, of mean 0 and deviation CONTRAST each: exposures differ more than defects do."""
    x = x.mean(1, keepdim=True)
    x = x - x.mean((1, 2, 3), keepdim=True)
    x = CONTRAST * x / x.square().mean((1, 2, 3), keepdim=True).sqrt().clamp(min=1e-3)
    return x.clamp(-1, 1).expand(-1, 3, -1, -1).contiguous()


def learn(run: Path, data: Path, flags: list[str], seed: int = 0) -> Path:
    """Train on a folder of crops, unless the run is finished."""
    if not (run / "model.safetensors").exists():
        train.main(
            [
                *BOTH,
                *flags,
                "--data",
                str(data),
                "--seed",
                str(seed),
                "--cache",
                str(run.parent / "cache"),
                "--out",
                str(run),
                *(["--resume"] if (run / "config.toml").exists() else []),
            ]
        )
    return run


def synthetic(run: Path, few: list[Photo], free: list[Photo], seed: int):
    """COUNT squares of each class, as the probe sees them: with moved defects, and with these drawn again; labels (N,).

    Those of the class free are defect-free photographs in both.
    """
    rng = np.random.default_rng([seed, 1])
    parts = [moved([p for p in few if p.label == label], free, COUNT, rng) for label in FEW]
    defects = Moved(*(np.concatenate(planes) for planes in zip(*parts)))  # (3 COUNT, S, S)
    plain = np.stack([crops(free[i], 1)[0][0] for i in rng.integers(len(free), size=COUNT)])
    labels = torch.arange(len(CLASSES)).repeat_interleave(COUNT)
    stored = run / "drawn.npy"
    if not stored.exists():
        np.save(stored, redrawn(run, defects.pixels, labels[: len(defects.pixels)], seed))
    drawn = laid(np.load(stored).mean(3), defects.alpha, defects.ground)
    shown = [lit(to_tensor(colours(np.concatenate([pixels, plain])))) for pixels in (defects.pixels, drawn)]
    return *shown, labels


@torch.no_grad()
def redrawn(run: Path, pixels: np.ndarray, labels: torch.Tensor, seed: int) -> np.ndarray:
    """Squares (N, S, S) noised to STRENGTH and denoised by the run's model as their classes: (N, S, S, 3) uint8."""
    model = weights.load(run / "model.safetensors", expect="dit", dtype=torch.float32)
    vae = weights.load("tiny-vae", expect="vae", dtype=torch.float32)
    schedule, scale, made = dit_schedule(model.noise_schedule), vae.config.scaling_factor, []
    rows = torch.tensor([model.classes.index(f"tile/{name}") for name in CLASSES])[labels]
    for first in range(0, len(pixels), BATCH):
        part = slice(first, first + BATCH)
        with autocast("auto", torch.device("cpu")):
            z = scale * vae.encode(to_tensor(colours(pixels[part])))[0].float()  # (B, c, h, w)
            denoiser = batched_cfg(model, rows[part], model.null, GUIDANCE)
            here = range(len(z))
            z = sample_latents(
                denoiser, here, model.latent_shape, schedule, "ddim", STEPS, fold_in(seed, first), BATCH, z, STRENGTH
            )
            made.append(to_uint8(vae.images(z)))
    return np.concatenate(made)


def counts(parts: dict[str, list[Photo]]) -> dict:
    """Part -> class -> photographs, tiles."""
    return {
        part: {
            label: [sum(p.label == label for p in photos), len({p.tile for p in photos if p.label == label})]
            for label in CLASSES
        }
        for part, photos in parts.items()
        if part in ("train", "test")
    }


def section(found: dict) -> str:
    """The table of the arms, and what they say."""
    accuracy = {name: [mean(run) for run in runs] for name, runs in found["arms"].items()}
    base, lines = accuracy["real"], []
    for name, values in accuracy.items():
        difference, half = gain(values, base)
        recall = [mean(run[i] for run in found["arms"][name]) for i in range(len(CLASSES))]
        lines.append(
            [
                name,
                spread(values, 3),
                "" if name == "real" else f"{difference:+.3f} +- {half:.3f}",
                *(f"{value:.2f}" for value in recall),
            ]
        )
    ours = accuracy["real + drawn again"]
    others = ("real", "real + altered", "real + moved", "real + shuffled")
    against = {name: gain(ours, accuracy[name]) for name in others}
    said = ", ".join(f"over {name} {difference:+.3f} +- {half:.3f}" for name, (difference, half) in against.items())
    clear = [name for name, (difference, half) in against.items() if difference > half]
    held = "; ".join(
        f"{label}: {photos} photographs of {tiles} tiles" for label, (photos, tiles) in found["images"]["test"].items()
    )
    return (
        table(["trained on", "balanced accuracy", "gain over real", *CLASSES], lines)
        + f"\nTested on {held}, {CROPS['test']} squares of each. {len(base)} draws of {SHOTS} photographs of "
        f"{TILES} tiles a class; intervals are Student's at 95 % over the draws. Chance is "
        f"{1 / len(CLASSES):.2f}.\n\n- What the generator gains: {said}; beyond the interval: "
        f"**{', '.join(clear) or 'none of these'}**\n"
    )

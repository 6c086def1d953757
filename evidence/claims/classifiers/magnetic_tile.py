"""Synthetic defects raise a classifier of real ones.

Hoped for by defect studies: a generator that knows the product is shown few images of new defects, and a classifier
learns more from these and the generator's images together. Here: photographs of magnetic tiles (Huang et al. 2018).
tiny-dit, all of it, learns tiles that are free of defects, frayed or uneven, then blowhole, break and crack from six
photographs each of three tiles. The defects of the six are cut out along their masks, turned, scaled and moved onto
defect-free photographs. The generator adds a little noise to these and denoises them (image to image), and its defect
replaces the moved one. Logistic regression on the features of tiny-features (metrics/downstream/linear.py) learns from
all real photographs of the four classes that the generator has seen, and from these squares, which have a tenth of the
loss.

Other arms: `real + moved` leaves the generator out; `real + altered` has the real squares again, scaled, moved,
lightened and covered in part; `real + shuffled` has the generator's squares with wrong labels; `more real` has the
photographs of further tiles. Duplicates are no arm: every class of a source weighs the same, so that the minimum stays.

No tile is on two sides: one was photographed up to six times and more, and a split by image would show the probe the
defects that it is tested on. Settings were chosen on tiles of the training side, among many variants: of moving, of the
share, of the strength (above 0.2 the generator washes defects out, and less was gained). The test's tiles were used
before: by three arms of a network trained whole, which was given up, and by an earlier form of these arms, which moved
defects less, kept what the generator changed around them and gained nothing. The claim needs the photographs,
--photographs.
"""

import json
from pathlib import Path
from statistics import mean

import numpy as np
import torch
from PIL import Image

import weights
from data.output.atomic import write_atomic
from data.place.moved import laid
from data.transforms import to_tensor, to_uint8
from evidence.results import Result, arms_table, gains
from evidence.steps import ROOT
from evidence.tools.tiles import Moved, Photo, crops, few_shot, moved, read, split
from experiments.run import train
from metrics.downstream.gain import altered, recalls
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
BOTH = {"adapter": ["full"], "rotations": "0", "measure": 0, "count": 3, "sample_steps": 20}
BASE = BOTH | {"model": "tiny-dit", "steps": 900, "lr": 4e-4, "warmup": 50, "ema": 0.995}
FEW_SHOT = BOTH | {"steps": 250, "lr": 3e-4, "ema": 0.98, "mask_weight": 4.0}
STRENGTH, STEPS, GUIDANCE, BATCH = 0.2, 24, 1.5, 32  # of image to image
SHARE = 0.1  # of the loss that the second source of an arm has
CONTRAST = 0.35  # standard deviation of every square that the probe sees


def numbers(work: Path, quick: bool, data: str, part: str = "test") -> dict:
    """The recalls of every arm and draw, {arm: [recalls of CLASSES, ...]}, and the counts of photographs.

    data: the folder of photographs; part: those that the probe is tested on, or "val", which settings were chosen on.
    """
    work, short = work.resolve() / "magnetic_tile", {"steps": 5} if quick else {}
    parts = split(read(data), FEW)
    base = [p for p in parts["train"] if p.label not in FEW]
    free = [p for p in base if p.label == "free"]
    short |= {"cache": str(work / "cache")}
    folder = cut(work / "crops-base", {CROPS["base"]: base})
    model = train(work / "base", BASE | short | {"data": str(folder)}) / "model.safetensors"
    results = {"part": part, "arms": {}, "images": counts(parts)}
    for seed in range(1 if quick else DRAWS):
        pairs = [few_shot(parts["train"], label, TILES, SHOTS, seed) for label in FEW]
        few, others = ([p for pair in pairs for p in pair[i]] for i in (0, 1))
        folder = cut(work / f"crops-few-{seed}", {CROPS["few"]: few, 1: free[seed::3]})
        settings = {"model": str(model), "data": str(folder), "seed": seed}
        run = train(work / f"few-{seed}", FEW_SHOT | short | settings)
        shifted, generated, labels = synthetic(run, few, free, seed)
        real = [torch.cat(pair) for pair in zip(squares(few, CROPS["few"]), squares(free, CROPS["base"]))]
        held_out = [p for p in (parts["test"] if part == "test" else parts["val"] + others) if p.label in CLASSES]
        mixed = labels[torch.randperm(len(labels), generator=generator_for(seed))]
        arms = {
            "real": [real],
            "real + altered": [real, (altered(real[0], generator_for(seed)), real[1])],
            "real + moved": [real, (shifted, labels)],
            "real + drawn again": [real, (generated, labels)],
            "real + shuffled": [real, (generated, mixed)],
            "moved": [(shifted, labels)],
            "drawn again": [(generated, labels)],
        }
        if part == "test":  # the real photographs that settings were chosen on
            arms["more real"] = [[torch.cat(pair) for pair in zip(squares(others, CROPS["few"]), real)]]
        for name, values in recalls_of(run, part, arms, squares(held_out, CROPS["test"])).items():
            results["arms"].setdefault(name, []).append(values)
    return results


def recalls_of(run: Path, part: str, arms: dict, held_out: tuple[torch.Tensor, torch.Tensor]) -> dict[str, list[float]]:
    """Arm -> the recalls of CLASSES by the linear probe; read from the run's folder if they are there."""
    stored = run / f"recalls-{part}.json"
    if stored.exists():
        return json.loads(stored.read_text())
    network, _ = features.load_classifier(ROOT / "weights" / "tiny-features" / "model.safetensors")
    recalls_by_arm, features_of = {}, {}
    for name, sources in arms.items():
        for x, y in sources:
            features_of[id(x)] = features_of[id(x)] if id(x) in features_of else views(network, x, y)[0]  # (8 N, D)
        shares = [1 - SHARE, SHARE] if len(sources) > 1 else [1.0]
        probe = linear_probe(network, [(features_of[id(x)], y.repeat(8)) for x, y in sources], shares, len(CLASSES))
        recalls_by_arm[name] = recalls(probe, *held_out, len(CLASSES))
        print(f"{run.name}, {name}: {mean(recalls_by_arm[name]):.3f}", flush=True)
    write_atomic(stored, json.dumps(recalls_by_arm).encode())
    return recalls_by_arm


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


def synthetic(run: Path, few: list[Photo], free: list[Photo], seed: int) -> tuple[torch.Tensor, ...]:
    """COUNT squares of each class with moved defects (N, 3, S, S), the same with generated defects, labels (N,).

    Those of the class free are defect-free photographs in both.
    """
    rng = np.random.default_rng([seed, 1])
    parts = [moved([p for p in few if p.label == label], free, COUNT, rng) for label in FEW]
    defects = Moved(*(np.concatenate(planes) for planes in zip(*parts)))  # (3 COUNT, S, S)
    plain = np.stack([crops(free[i], 1)[0][0] for i in rng.integers(len(free), size=COUNT)])
    labels = torch.arange(len(CLASSES)).repeat_interleave(COUNT)
    stored = run / "drawn.npy"
    if not stored.exists():
        np.save(stored, regenerated(run, defects.pixels, labels[: len(defects.pixels)], seed))
    generated = laid(np.load(stored).mean(3), defects.alpha, defects.ground)
    both = (lit(to_tensor(colours(np.concatenate([pixels, plain])))) for pixels in (defects.pixels, generated))
    return *both, labels


@torch.no_grad()
def regenerated(run: Path, pixels: np.ndarray, labels: torch.Tensor, seed: int) -> np.ndarray:
    """Squares (N, S, S) noised to STRENGTH and denoised by the run's model as their classes: (N, S, S, 3) uint8."""
    model = weights.load(run / "model.safetensors", expect="dit", dtype=torch.float32)
    vae = weights.load("tiny-vae", expect="vae", dtype=torch.float32)
    schedule = dit_schedule(model.noise_schedule, objective=model.objective)
    scale, parts = vae.config.scaling_factor, []
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
            parts.append(to_uint8(vae.images(z)))
    return np.concatenate(parts)


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


def result(numbers: dict) -> Result:
    """The statements, and the table."""
    accuracy, table = arms_table(numbers["arms"], CLASSES, ".3f")
    ours, others = accuracy["real + drawn again"], ("real", "real + altered", "real + moved", "real + shuffled")
    held = "; ".join(
        f"{name}: {n} photographs of {tiles} tiles" for name, (n, tiles) in numbers["images"]["test"].items()
    )
    return Result(
        [gains(f"accuracy with samples of the generator is above that of `{x}`", ours, accuracy[x]) for x in others],
        table
        + f"\nTested on {held}, {CROPS['test']} squares of each. {len(ours)} draws of {SHOTS} photographs of {TILES} "
        "tiles a class; here a statement holds if the difference is beyond the interval, Student's at 95 % over the "
        f"draws. Chance is {1 / len(CLASSES):.2f}.\n",
    )

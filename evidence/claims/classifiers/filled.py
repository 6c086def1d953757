"""Defects filled into masks on good photographs raise a segmenter, and a classifier, of real ones.

What the studies of defect generation promise: from a few photographs of defects, pairs (photograph, mask) that a
segmenter learns more from. Here: 5 photographs of each defect of a hazelnut with their masks, 60 good ones, tiny-dit.
The masks of the few are moved onto the good photographs (python -m data.place), and filled by the class model with
blended latents, or by a model that learned to read masks (recipe inpaint): in the square of twice a mask's box
(`--window 2`), or in the `whole` photograph. The pairs are those of sample.py --product, with the mask of what changed.
A small U-Net with a fixed budget (metrics/downstream/segment.py) learns from the real pairs and these, half of each
batch, and is measured on other photographs by the average precision of pixels; a linear probe on tiny-features learns
the classes.

The other arms: `strong` has the real pairs moved, lightened and covered; `moved` cuts the real defects out and lays
them on the good photographs in their light; `procedural` darkens or lightens made-up spots and strokes; `without mask`
are whole pictures of the class model, for the classifier alone; `ControlNet` are whole pictures with the asked mask;
`shuffled` are the pairs of `inpaint` with masks, or labels, of one another; `more real` has other real photographs.
Every draw has other few photographs, and no photograph is on two sides. The window was chosen on a seventh draw, tested
on further photographs: there blending beside the mask's input, masks grown by one or two pixels, and the good
photograph's grain added again did not help. Nothing is chosen on the test, but after a look at two of the draws the
paste lost its soft edge in thin masks, and guidance became that of sample.py.
"""

import json
from pathlib import Path
from statistics import mean

import numpy as np
import scipy
import torch
from PIL import Image

from data import ImageSet, load
from data.images import decode
from data.output.atomic import write_atomic
from data.output.grid import save_image
from data.place.__main__ import main as place
from data.place.foreground import foreground
from data.place.moved import displaced, laid, relit
from data.place.procedural import spot, stroke
from data.transforms import Transform, to_tensor
from evidence.pairs_picture import read_lines
from evidence.results import Result, arms_table, gains
from evidence.steps import ROOT, SIDE
from evidence.tools.finder import overlap, trained_finder
from experiments.run import sample_once, train
from experiments.table import spread, table
from metrics.downstream.gain import altered, recalls
from metrics.downstream.linear import linear_probe, views
from metrics.downstream.segment import Segmenter, segmentation, segmented
from metrics.networks import features

STATES = ("crack", "hole", "cut", "print")
CLASSES = [f"hazelnut/{state}" for state in ("good", *STATES)]
DRAWS, SHOTS, GOOD, COUNT, TEST = 6, 5, 60, 40, 60  # few draws; photographs of a class, good ones, pairs, test ones
STEPS, SAMPLE_STEPS, SEGMENT_STEPS, FINDER_STEPS, BATCH = 600, 25, 300, 800, 32
SHARE = 0.5  # of the probe's loss that the second source has
WINDOWS = {"inpaint": 2.0, "inpaint, whole": 0.0}  # arm -> side of the square that it draws, in sides of a mask's box
SHIFT = 12  # pixels, at most, of a moved defect
CONTROLS = ("real", "real, strong", "real + moved", "real + procedural", "real + ControlNet", "real + shuffled")
Source = tuple[torch.Tensor, torch.Tensor, torch.Tensor]  # images (N, 3, S, S), masks (N, S, S), labels (N,)


def numbers(work: Path, quick: bool) -> dict:
    """Segmentation and recalls of every arm and draw, and the finder's overlap of drawn defects with asked masks."""
    work = work.resolve() / "filled"
    draws, shots, count, goods, test, steps = (1, 2, 2, 4, 2, 5) if quick else (DRAWS, SHOTS, COUNT, GOOD, TEST, STEPS)
    finder = trained_finder("hazelnut", work / "finder.safetensors", 5 if quick else FINDER_STEPS, 10 if quick else 100)
    sources = (f"few/{draws * shots}", f"oracle/{max(count, goods)}", f"test/{test}")
    few, more, held = (load(f"generated:hazelnut/{source}", Transform(SIDE)) for source in sources)
    results = {"sizes": {"draws": draws, "shots": shots, "count": count, "good": goods, "test": test, "steps": steps}}
    results |= {"segmentation": {}, "recalls": {}, "overlap": {}}
    good = written(work / "good", some_of(more, range(goods)), ("good",))
    for draw in range(draws):
        folder = work / f"draw-{draw}"
        real = some_of(few, range(draw * shots, (draw + 1) * shots))
        tree = written(folder / "few", real)
        stored = folder / "numbers.json"
        if not stored.exists():
            made = drawn(folder, tree, good, count, steps, 3 if quick else SAMPLE_STEPS, draw, finder)
            made |= compared(real, made.pop("sources"), some_of(more, range(count)), held, good, count, draw, quick)
            write_atomic(stored, json.dumps(made).encode())
            print(f"draw {draw}: {json.dumps(made)}", flush=True)
        for kind, values in json.loads(stored.read_text()).items():
            for arm, value in values.items():
                results[kind].setdefault(arm, []).append(value)
    return results


def some_of(images: ImageSet, numbers: range) -> ImageSet:
    """The images of each class with these numbers, in a set of a whole number of images a class."""
    each = len(images.names) // len(images.classes)
    index = np.concatenate([label * each + np.array(numbers) for label in range(len(images.classes))])
    return images._replace(
        pixels=images.pixels[index],
        labels=images.labels[index],
        names=[images.names[i] for i in index],
        masks=images.masks[index],
    )


def written(folder: Path, images: ImageSet, states: tuple[str, ...] = ("good", *STATES)) -> Path:
    """The images as an MVTec tree of a hazelnut with their masks; of good ones alone, a plain folder."""
    for label, name in enumerate(images.classes):
        state = name.split("/")[1]
        own = np.flatnonzero(images.labels.numpy() == label) if state in states else []
        for i, row in enumerate(own):
            where = folder if states == ("good",) else folder / "hazelnut" / "test" / state
            if not (path := where / f"{i:03d}.png").exists():
                save_image(path, images.pixels[row])
            if state != "good":
                truth = folder / "hazelnut" / "ground_truth" / state / f"{i:03d}_mask.png"
                save_image(truth, images.masks[row].astype(np.uint8) * 255)
    return folder


def drawn(
    folder: Path, tree: Path, good: Path, count: int, steps: int, sample_steps: int, draw: int, finder: Segmenter
) -> dict:
    """The runs of a draw and what they drew: "sources" of each arm, and "overlap": the IoU of asked masks and found
    defects in its pictures, and the share of the masks that have one."""
    both = {"data": str(tree), "cache": str(folder / "cache"), "seed": draw, "batch": BATCH, "sample_every": steps}
    both |= {"save_every": max(steps // 4, 1), "steps": steps, "sample_steps": sample_steps, "count": 1}
    classes = train(folder / "classes", both | {"measure": 0})
    fills = {"blended": classes}  # arm -> the run that fills its masks
    for arm, window in WINDOWS.items():
        fills[arm] = train(folder / arm, both | {"recipe": "inpaint", "window": window})
    control = train(folder / "control", both | {"recipe": "control", "init": [str(classes / "adapter.safetensors")]})
    sources, found, wanted = {}, {}, 0  # found: arm -> its pictures and the masks asked for, of each state
    call = {"steps": sample_steps, "count": count, "seed": draw}
    for state in STATES:
        masks, label = folder / "masks" / state, CLASSES.index(f"hazelnut/{state}")
        truth = tree / "hazelnut" / "ground_truth" / state
        if place(["--good", str(good), "--from-masks", str(truth), "--out", str(masks), "--seed", str(draw)]):
            raise ValueError(f"{truth}: no masks were placed on {good}")
        asked = {str(file): np.array(Image.open(file)) > 0 for file in sorted(masks.glob("*.png"))[:count]}
        wanted += len(asked)
        own = call | {"classes": f"hazelnut/{state}"}
        for arm, run in fills.items():
            out, end = folder / arm / state, folder / arm / f"{state}.done"
            fill = {"image": str(good), "mask": str(masks), "product": "hazelnut", "replace": True}
            if not end.exists():
                sample_once(out, own | fill | {"run": str(run)})
                write_atomic(end, b"")
            pairs = load(str(out), Transform(SIDE))
            found.setdefault(arm, []).append((pairs.pixels, [asked[line["asked"]] for line in read_lines(out)]))
            add(sources, arm, pairs.pixels, pairs.masks, label)
        sample_once(folder / "ControlNet" / state, own | {"run": str(control), "hint": list(asked)})
        sample_once(folder / "without mask" / state, own | {"run": str(classes)})
        hinted, whole = (
            np.stack([decode(path) for path in sorted((folder / arm / state).glob("*_0*.png"))])
            for arm in ("ControlNet", "without mask")
        )
        found.setdefault("ControlNet", []).append((hinted, list(asked.values())))
        add(sources, "ControlNet", hinted, np.stack(list(asked.values())), label)
        add(sources, "without mask", whole, np.zeros(whole.shape[:3], bool), label)
    overlaps = {}
    for arm, parts in found.items():
        pictures, masks = (np.concatenate(some) for some in zip(*parts))
        overlaps[arm] = [overlap(finder, pictures, masks)[0], len(pictures) / wanted]
    return {"sources": {arm: tuple(map(torch.cat, zip(*parts))) for arm, parts in sources.items()}, "overlap": overlaps}


def add(sources: dict, arm: str, pixels: np.ndarray, masks: np.ndarray, label: int) -> None:
    """Images of one class as a part of an arm's source."""
    labels = torch.full((len(pixels),), label)
    sources.setdefault(arm, []).append((to_tensor(pixels), torch.from_numpy(masks).float(), labels))


def compared(
    real: ImageSet, made: dict, more: ImageSet, held: ImageSet, good: Path, count: int, draw: int, quick: bool
) -> dict:
    """Segmentation (ap, auroc, f1_max, pro) and recalls of each arm."""
    grounds = [decode(path) for path in sorted(good.glob("*.png"))]
    made |= {"moved": moved(real, grounds, count, draw), "procedural": procedural(grounds, count * len(STATES), draw)}
    mixed = torch.randperm(len(made["inpaint"][2]), generator=torch.Generator().manual_seed(draw))
    x, masks, labels = made["inpaint"]
    made["shuffled"] = x, masks[mixed], labels[mixed]
    few, test = ((to_tensor(s.pixels), torch.from_numpy(s.masks).float(), s.labels) for s in (real, held))
    made["more real"] = (to_tensor(more.pixels), torch.from_numpy(more.masks).float(), more.labels)
    empty = torch.zeros(len(grounds), SIDE, SIDE), torch.zeros(len(grounds), dtype=torch.long)
    plain = (to_tensor(np.stack(grounds)), *empty)
    steps, found = 5 if quick else SEGMENT_STEPS, {"segmentation": {}, "recalls": {}}
    base = tuple(torch.cat(parts) for parts in zip(few, plain))  # every arm has the good photographs
    network, _ = features.load_classifier(ROOT / "weights" / "tiny-features" / "model.safetensors")
    seen = views(network, *base[::2])
    strong = altered(base[0], torch.Generator().manual_seed(draw))
    arms = {"real": [], "real, strong": []} | {f"real + {name}": [source] for name, source in made.items()}
    for arm, sources in arms.items():
        if arm != "real + without mask":
            pairs = [part[:2] for part in (base, *sources)]
            found["segmentation"][arm] = segmentation(segmented(pairs, draw, steps, arm == "real, strong"), test[:2])
        if arm != "real + procedural":  # its defects are of no class
            extra = [with_good(source, plain) for source in sources] or [(strong, base[2])] * (arm == "real, strong")
            parts = [seen, *(views(network, *source) for source in extra)]
            shares = [1 - SHARE, SHARE] if extra else [1.0]
            probe = linear_probe(network, parts, shares, len(CLASSES))
            found["recalls"][arm] = recalls(probe, test[0], test[2], len(CLASSES))
    return found


def with_good(source: Source, plain: Source) -> tuple[torch.Tensor, torch.Tensor]:
    """Images and labels of a source and the good photographs."""
    return torch.cat([source[0], plain[0]]), torch.cat([source[2], plain[2]])


def moved(real: ImageSet, grounds: list[np.ndarray], count: int, seed: int) -> Source:
    """`count` defects of each state, cut out along their masks, displaced, and laid on good photographs."""
    rng, made = np.random.default_rng([seed, 1]), {}
    for state in STATES:
        label = CLASSES.index(f"hazelnut/{state}")
        own = np.flatnonzero(real.labels.numpy() == real.classes.index(CLASSES[label]))
        pixels, masks = [], []
        while len(pixels) < count:
            row, ground = own[rng.integers(len(own))], grounds[rng.integers(len(grounds))]
            state_of = rng.bit_generator.state
            planes = []
            for channel in range(3):  # one displacement for all
                rng.bit_generator.state = state_of
                image, mask = displaced([real.pixels[row][..., channel], real.masks[row] * 255], rng, SHIFT)
                planes.append(relit(image, image[mask <= 64], ground[..., channel]))
            where = (mask > 127) & foreground(ground)
            if where.sum() < 0.5 * (mask > 127).sum() or not where.any():
                continue
            alpha = scipy.ndimage.gaussian_filter(scipy.ndimage.binary_dilation(where).astype(float), 1.0)[..., None]
            pixels.append(laid(np.stack(planes, -1), alpha, ground))
            masks.append(where)
        add(made, "moved", np.stack(pixels), np.stack(masks), label)
    return tuple(map(torch.cat, zip(*made["moved"])))


def procedural(grounds: list[np.ndarray], count: int, seed: int) -> Source:
    """Spots and strokes that are darker or lighter than the good photograph below; of no class."""
    rng, pixels, masks = np.random.default_rng([seed, 2]), [], []
    for i in range(count):
        ground = grounds[rng.integers(len(grounds))]
        mask = (spot, stroke)[i % 2](foreground(ground), rng)
        alpha = scipy.ndimage.gaussian_filter(mask.astype(float), 0.7)[..., None]
        colour = rng.choice([0.0, 255.0]) * rng.uniform(0.5, 1) + rng.uniform(-40, 40, 3)
        pixels.append(laid(colour, 0.7 * alpha, ground))
        masks.append(mask)
    return to_tensor(np.stack(pixels)), torch.from_numpy(np.stack(masks)).float(), torch.zeros(count, dtype=torch.long)


def result(numbers: dict) -> Result:
    """The statements, and the tables."""
    ap = {arm: [run["ap"] for run in runs] for arm, runs in numbers["segmentation"].items()}
    accuracy, classes = arms_table(numbers["recalls"], [name.split("/")[1] for name in CLASSES], ".2f")
    best = max((arm for arm in CONTROLS if arm in ap), key=lambda arm: mean(ap[arm]))
    keys = ("ap", "auroc", "f1_max", "pro")
    by_arm = numbers["segmentation"].items()
    lines = [[arm, *(spread([run[key] for run in runs], ".3f") for key in keys)] for arm, runs in by_arm]
    iou = [[arm, *(spread(list(some), ".2f") for some in zip(*runs))] for arm, runs in numbers["overlap"].items()]
    sizes = numbers["sizes"]
    ours, whole, blends = ap["real + inpaint"], ap["real + inpaint, whole"], ap["real + blended"]
    more, classified, without = ap["real + more real"], accuracy["real + inpaint"], accuracy["real + without mask"]
    return Result(
        [
            gains(f"pixel AP with pairs of `inpaint` is above that of the best control ({best})", ours, ap[best]),
            gains(f"pixel AP with blended pairs is above that of the best control ({best})", blends, ap[best]),
            gains(f"pixel AP with `more real` is above that of the best control ({best})", more, ap[best]),
            gains("pixel AP with pairs of `inpaint` is above that of `real`", ours, ap["real"]),
            gains("pixel AP with pairs of `inpaint` is above that of the whole photograph's", ours, whole),
            gains("class accuracy with `inpaint` is above that with whole pictures", classified, without),
        ],
        "\n".join(
            [
                table(["trained on", "AP", "AUROC", "F1-max", "PRO"], lines),
                classes,
                table(["drawn by", "overlap of asked mask and found defect, IoU", "masks that became a pair"], iou),
                f"{sizes['draws']} draws of {sizes['shots']} photographs of each class, {sizes['count']} pairs of each "
                f"defect, {sizes['good']} good photographs, {sizes['steps']} steps; tested on {sizes['test']} of each "
                "class. F1-max has its threshold from the test and is a bound. A statement holds if the difference is "
                "beyond the interval, Student's at 95 % over the draws.\n",
            ]
        ),
    )

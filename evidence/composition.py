"""Guidance away from a class removes it from the samples (NOT of composable diffusion).

Claimed by Liu et al. 2022 (arXiv 2206.01714), for text. Here: tiny-dit with rows for superclasses, fine-tuned on 20
images of each state of two products (the runs of superclass guidance). The superclass hazelnut draws all its states;
`--without STATE:2` is to remove one of them from samples with guidance 4, and the judge, tiny-features, counts the
states before and after. (With guidance 2 nothing of the superclass is left beside it: only 0.15 were hazelnuts.)
"""
from pathlib import Path

import torch

import compare
import sample
from data.drawn import read_drawn
from data.transforms import Transform, to_tensor
from metrics import features
from weights.load import SHIPPED

from . import HERE, below, mean, spread, table, verdicts

STATES = ("good", "crack", "hole", "cut", "print")
WEIGHTS = (2.0,)
GUIDANCE, COUNT, STEPS = "4", 60, 20


def numbers(work, quick):
    """weight -> state -> for each seed the state's share with --without STATE:WEIGHT; and the shares of hazelnuts."""
    plan = compare.read(HERE / "superclass.toml")   # the same runs
    plan, count = (compare.shortened(plan), 4) if quick else (plan, COUNT)
    before, after, whole = [], {str(w): {state: [] for state in STATES} for w in WEIGHTS}, {str(w): [] for w in WEIGHTS}
    for seed in range(plan.seeds):
        run = compare.trained(plan, work.resolve() / "superclass", "tiered", seed)
        before.append(shares(draw(run, seed, count, quick)))
        for weight in WEIGHTS:
            found = [shares(draw(run, seed, count, quick, state, weight)) for state in STATES]
            for state, share in zip(STATES, found):
                after[str(weight)][state].append(share[state])
            whole[str(weight)].append(mean(share["a hazelnut"] for share in found))
    return {"count": count, "before": before, "after": after, "a hazelnut": whole}


def draw(run: Path, seed: int, count: int, quick: bool, without: str = "", weight: float = 0.0) -> Path:
    """Samples of the superclass, away from one state of it."""
    out = run / (f"without-{without}-{weight:g}" if without else "superclass")
    if not (out / "grid.png").exists():
        away = ["--without", f"hazelnut/{without}:{weight:g}"] if without else []
        sample.main(["--run", str(run), "--classes", "hazelnut", "--guidance-from", "null", "--guidance", GUIDANCE,
                     *away, "--count", str(count), "--steps", "5" if quick else str(STEPS), "--seed", str(seed),
                     "--out", str(out)])
    return out


def shares(folder: Path) -> dict[str, float]:
    """What the judge takes the samples for: each state's share among the states, and that of hazelnuts in all."""
    network, names = features.load(SHIPPED / "tiny-features" / "model.safetensors")
    logits = features.embed(network, to_tensor(read_drawn(folder, Transform(64)).pixels))[1]
    among = logits[:, [names.index(f"hazelnut/{state}") for state in STATES]].argmax(1)
    own = torch.tensor([name.startswith("hazelnut/") for name in names])[logits.argmax(1)]
    return {state: (among == i).double().mean().item() for i, state in enumerate(STATES)} | {
        "a hazelnut": own.double().mean().item()}


def section(found):
    before = {state: [shares[state] for shares in found["before"]] for state in STATES}
    lines = [["nothing", *(spread(before[state]) for state in STATES),
              spread([shares["a hazelnut"] for shares in found["before"]])]]
    lines += [[f"this state, weight {weight}", *(spread(after[state]) for state in STATES),
               spread(found["a hazelnut"][weight])] for weight, after in found["after"].items()]
    return (table(["without", *(f"share of {state}" for state in STATES), "of them hazelnuts"], lines)
            + f"\n{found['count']} samples each. With weight 2:\n"
            + verdicts({f"fewer are of the state {state}": below(found["after"]["2.0"][state], before[state])
                        for state in STATES}))

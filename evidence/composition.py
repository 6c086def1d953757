"""Guidance away from a class removes it from the samples (NOT of composable diffusion).

Claimed by Liu et al. 2022 (arXiv 2206.01714), for text. Here: tiny-dit with rows for superclasses, fine-tuned on 20
images of each state of two products (the runs of superclass guidance). The superclass hazelnut draws all its states;
`--without STATE:2` is to remove one of them from samples with guidance 4, and the judge, tiny-features, counts the
states before and after. (With guidance 2 little of the superclass is left beside it.)
"""

from pathlib import Path
from statistics import mean

import torch

import compare
import sample
from data.output.samples import read_samples
from data.transforms import Transform, to_tensor
from evidence import below, planned, spread, table, verdicts
from metrics import networks

STATES = ("good", "crack", "hole", "cut", "print")
GUIDANCE, WEIGHT, COUNT, STEPS = "4", "2", 60, 20


def numbers(work, quick):
    """For each seed: the shares of all states before, of each state with --without it, and of hazelnuts then."""
    plan, count, judge = planned("superclass", quick), 4 if quick else COUNT, networks.load_network("tiny-features")
    before, after, whole = [], {state: [] for state in STATES}, []
    for seed in range(plan.seeds):
        run = compare.trained(plan, work.resolve() / "superclass", "tiered", seed)
        before.append(shares(judge, draw(run, seed, count, quick)))
        found = {state: shares(judge, draw(run, seed, count, quick, state)) for state in STATES}
        for state, share in found.items():
            after[state].append(share[state])
        whole.append(mean(share["a hazelnut"] for share in found.values()))
    return {"count": count, "before": before, "after": after, "a hazelnut": whole}


def draw(run: Path, seed: int, count: int, quick: bool, without: str = "") -> Path:
    """Samples of the superclass, away from one state of it."""
    out = run / (f"without-{without}-{WEIGHT}" if without else "superclass")
    if not (out / "grid.png").exists():
        away = ["--without", f"hazelnut/{without}:{WEIGHT}"] if without else []
        sample.main(
            [
                "--run",
                str(run),
                "--classes",
                "hazelnut",
                "--guidance-from",
                "null",
                "--guidance",
                GUIDANCE,
                *away,
                "--count",
                str(count),
                "--steps",
                "5" if quick else str(STEPS),
                "--seed",
                str(seed),
                "--out",
                str(out),
            ]
        )
    return out


def shares(judge: networks.Network, folder: Path) -> dict[str, float]:
    """What the judge takes the samples for: each state's share among the states, and that of hazelnuts in all."""
    logits = judge.logits(to_tensor(read_samples(folder, Transform(64)).pixels))
    among = logits[:, [judge.classes.index(f"hazelnut/{state}") for state in STATES]].argmax(1)
    own = torch.tensor([name.startswith("hazelnut/") for name in judge.classes])[logits.argmax(1)]
    return {state: (among == i).double().mean().item() for i, state in enumerate(STATES)} | {
        "a hazelnut": own.double().mean().item()
    }


def section(found):
    before, after = {state: [share[state] for share in found["before"]] for state in STATES}, found["after"]
    lines = [
        [
            "nothing",
            *(spread(before[state]) for state in STATES),
            spread([share["a hazelnut"] for share in found["before"]]),
        ],
        ["this state", *(spread(after[state]) for state in STATES), spread(found["a hazelnut"])],
    ]
    return (
        table(["without", *(f"share of {state}" for state in STATES), "of them hazelnuts"], lines)
        + f"\n{found['count']} samples each; the weight of NOT is {WEIGHT}.\n"
        + verdicts({f"fewer are of the state {state}": below(after[state], before[state]) for state in STATES})
    )

"""Negative guidance (NOT of composable diffusion) removes a class from the samples.

Claimed by Liu et al. 2022 (arXiv 2206.01714), for text. Here: tiny-dit with rows of superclasses, fine-tuned on 20
images of each state of two products (the runs of superclass guidance). Samples of the superclass hazelnut show all its
states; `--without STATE:2` should remove one of them at guidance 4. The classifier tiny-features counts the states
before and after. (At guidance 2 little of the superclass is left.)
"""

from pathlib import Path
from statistics import mean

import torch

from data import ImageSet
from data.transforms import to_tensor
from evidence.results import Result, Runs, lower
from evidence.steps import plan_of, run_of, samples
from experiments.table import Column
from metrics import networks

STATES = ("good", "crack", "hole", "cut", "print")
WEIGHT, COUNT = 2, 60


def numbers(work: Path, quick: bool) -> dict:
    """For each seed: the shares of all states before, of each state with --without it, and of hazelnuts then."""
    count, classifier = 4 if quick else COUNT, networks.load_network("tiny-features")
    settings = {"classes": "hazelnut", "guidance_from": "null", "guidance": 4, "count": count, "steps": 20}
    before, after, hazelnuts = [], {state: [] for state in STATES}, []
    for seed in range(plan_of("superclass", quick).seeds):
        run = run_of("superclass", work, quick, "tiered", seed)
        settings |= {"run": run, "seed": seed}
        before.append(shares(classifier, samples(run / "superclass", None, quick, **settings)))
        results = {}
        for state in STATES:
            folder, without = run / f"without-{state}-{WEIGHT}", f"hazelnut/{state}:{WEIGHT}"
            results[state] = shares(classifier, samples(folder, None, quick, without=without, **settings))
            after[state].append(results[state][state])
        hazelnuts.append(mean(share["a hazelnut"] for share in results.values()))
    return {"count": count, "before": before, "after": after, "a hazelnut": hazelnuts}


def shares(classifier: networks.Network, images: ImageSet) -> dict[str, float]:
    """Each state's share among the states of a hazelnut, and the share of hazelnuts among all products."""
    logits = classifier.logits(to_tensor(images.pixels))
    state = logits[:, [classifier.classes.index(f"hazelnut/{name}") for name in STATES]].argmax(1)
    hazelnut = torch.tensor([name.startswith("hazelnut/") for name in classifier.classes])[logits.argmax(1)]
    return {name: (state == i).double().mean().item() for i, name in enumerate(STATES)} | {
        "a hazelnut": hazelnut.double().mean().item()
    }


def result(numbers: dict) -> Result:
    """The statements, and the table."""
    after = numbers["after"] | {"a hazelnut": numbers["a hazelnut"]}
    rows = [{"method": "before"} | row for row in numbers["before"]]
    rows += [{"method": "after"} | dict(zip(after, values)) for values in zip(*after.values())]
    columns = [*(Column(state, f"share of {state}") for state in STATES), Column("a hazelnut", "hazelnuts of all")]
    before = Runs(rows).values
    return Result(
        [lower(f"fewer samples show the state {x}", after[x], before(x, "before")) for x in STATES],
        Runs(rows).table({"before": "nothing", "after": "this state"}, columns, "without")
        + f"\n{numbers['count']} samples each; the weight of NOT is {WEIGHT}.\n",
    )

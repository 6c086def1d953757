"""Gaussian weights help every method of fine-tuning, and the weight of their KL trades fidelity for diversity.

Claimed by Wu et al. 2024 (arXiv 2405.19931) for DreamBooth, LoRA and OFT under Stable Diffusion, and for norms alone as
the cheapest arm: samples are at once more faithful and more varied, more so the larger the weight of the KL. Here:
DreamBooth of tiny-sd on 3 images of each state of a hazelnut, one at a time, by each method with plain and with
Gaussian weights, and with five weights of the KL (configs/compare_bnn.toml). Samples are drawn with the mean weights,
and of the four Gaussian arms with sampled ones, too.
"""

from pathlib import Path

from evidence.results import Result, Runs
from evidence.steps import compared
from experiments.table import arm

ARMS = {"full": "DreamBooth", "lora": "LoRA", "oft": "OFT", "norm": "norms"}
KL = {
    "full-bnn": "no KL",
    "full-bnn-kl-1e-7": "KL of 1e-7",
    "full-bnn-kl-1e-6": "KL of 1e-6",
    "full-bnn-kl-1e-5": "KL of 1e-5",
    "full-bnn-kl-1e-4": "KL of 1e-4",
}
MEAN, SAMPLED = "mean", "sampled"  # sampling variants
COLUMNS = ["class_accuracy", "kid_x1000", "precision", "coverage", "diversity", "copies", "authentic"]


def numbers(work: Path, quick: bool) -> list[dict]:
    """The rows of the comparison."""
    return compared("compare_bnn", work, quick)


def result(rows: list[dict]) -> Result:
    """The statements, and the tables of the arms and of the KL."""
    runs = Runs([row | {"arm": arm(row)} for row in rows], "arm")
    statements = []
    for way, name in ARMS.items():
        plain, gaussian, drawn = f"{way}, {MEAN}", f"{way}-bnn, {MEAN}", f"{way}-bnn, {SAMPLED}"
        statements += [
            runs.higher(f"{name}: class accuracy is higher with Gaussian weights", "class_accuracy", gaussian, plain),
            runs.lower(f"{name}: KID is lower with Gaussian weights", "kid_x1000", gaussian, plain),
            runs.higher(f"{name}: diversity is higher with Gaussian weights", "diversity", gaussian, plain),
            runs.higher(
                f"{name}: diversity is higher with sampled than with mean weights", "diversity", drawn, gaussian
            ),
        ]
    none, *_, most = (f"{method}, {MEAN}" for method in KL)
    statements += [
        runs.higher("diversity is higher with a KL of 1e-4 than with none", "diversity", most, none),
        runs.lower("class accuracy is lower with a KL of 1e-4 than with none", "class_accuracy", most, none),
    ]
    arms = {
        f"{way}{method}, {variant}": f"{name}, {weights}"
        for way, name in ARMS.items()
        for method, variant, weights in (
            ("", MEAN, "plain"),
            ("-bnn", MEAN, "Gaussian"),
            ("-bnn", SAMPLED, "Gaussian, sampled"),
        )
    }
    sweep = {f"{method}, {MEAN}": name for method, name in KL.items()}
    return Result(
        statements,
        f"{runs.table(arms, COLUMNS, 'weights')}\nAll of the UNet, Gaussian, by the weight of the KL:\n\n"
        f"{runs.table(sweep, COLUMNS, 'weight')}",
    )

"""The picture of a run: its losses, and what its evaluations measured, with the corruption stage marked."""

from pathlib import Path
from typing import TYPE_CHECKING

from metrics.statistics.corruption import NONE, Own, best, stage
from training.log import read_log
from training.monitor import measurements

if TYPE_CHECKING:  # matplotlib is optional
    from matplotlib.axes import Axes


def plot(run: Path) -> None:
    """run/loss.png from run/log.jsonl: the training loss, its running mean, and the held-out loss with fixed noise.

    Where samples were measured, below it their similarity to the images and their noise; the corruption stage is grey,
    and a ring is around the best evaluation. Says so where none was near the images.
    """
    evaluations = measurements(run)
    corrupted = stage(*evaluations)
    if corrupted:
        print(
            f"corruption stage: from step {corrupted[0]} to {corrupted[1]} the samples are noisy and unlike the images"
        )
    if evaluations[0] and max(evaluations[1]) < evaluations[-1].least:
        print(
            "no evaluation is the best: in all of them the samples are less like the images than the oddest image is "
            f"like the others ({abs(max(evaluations[1])):.2f}, and {abs(evaluations[-1].least):.2f} for that one)"
        )
    try:
        from matplotlib.figure import Figure
    except ImportError:
        print("loss.png is not drawn: that needs matplotlib (pip install matplotlib)")
        return
    rows = 2 if evaluations[0] else 1
    panels = Figure(figsize=(7, 1 + 3 * rows), layout="tight").subplots(rows, squeeze=False, sharex=True)[:, 0]
    losses(panels[0], read_log(run))
    panels[0].set(title=run.name)
    if evaluations[0]:
        samples(panels[1], *evaluations)
    panels[-1].set(xlabel="step")
    panels[0].figure.savefig(run / "loss.png", dpi=120)


def losses(axes: "Axes", lines: list[dict]) -> None:
    steps, values = zip(*((line["step"], line["loss"]) for line in lines if "loss" in line))
    mean = [sum(values[max(0, i - 49) : i + 1]) / len(values[max(0, i - 49) : i + 1]) for i in range(len(values))]
    axes.plot(steps, values, lw=0.5, alpha=0.4, label="training")
    axes.plot(steps, mean, lw=1.5, label="training, mean of 50 steps")
    held_out = [(line["step"], line["val"]) for line in lines if "val" in line]
    if held_out:
        axes.plot(*zip(*held_out), "o-", label="held out, fixed noise")
    axes.set(ylabel="loss", yscale="log")
    axes.legend()


def samples(axes: "Axes", steps: list, similarity: list, residual: list, deviations: list, own: Own = NONE) -> None:
    of_similarity, of_residual = zip(*deviations)
    axes.errorbar(steps, similarity, of_similarity, fmt="o-", color="C0", capsize=2)
    at = steps.index(best(steps, similarity, residual, deviations, own))
    axes.plot(steps[at], similarity[at], "o", ms=12, mfc="none", color="C0")
    found = stage(steps, similarity, residual, deviations, own)
    if found:
        axes.axvspan(*found, color="0.85", lw=6)  # a stage of one look would have no width
        axes.text(sum(found) / 2, 1.02, "corruption stage", ha="center", transform=axes.get_xaxis_transform())
    words = "similarity to the training images" if max(similarity) > 0 else "minus the distance, the images' own = 1"
    axes.set_ylabel(words, color="C0")
    other = axes.twinx()
    other.errorbar(steps, residual, of_residual, fmt="s--", lw=1, ms=3, color="C3", capsize=2)
    other.set_ylabel("noise, that of the images = 1", color="C3")

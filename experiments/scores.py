"""What a search found, as the logo study tells it (De Man, its tables 2, 3 and 4): every look at every run is a model.

    combined     (detector + text) / 2
    normalised   (span(detector) + span(text)) / 2, span from 0 for the method's worst model to 1 for its best

Table 2 has the best epoch of each run by its combined score, the three best runs of each method; table 3 the ten best
models of a method by the normalised score; table 4, where a `rank` was searched, the five best of all other values by
it and the three best ranks of each. The samples of step 0, before training, are no model.
"""

from pathlib import Path
from typing import NamedTuple

from border import read_table
from experiments.table import table
from metrics.alignment.scores import normalised
from training.log import read_log

SCORES = ("detector", "text", "combined")  # of a line of the log
BEST, MODELS, RATES = 3, 10, 5  # runs and ranks, models, combinations of rates in the tables
NOTE = (
    "*detector*: mean of the best confidences that reach the threshold; *text*: share of samples with the word; "
    "*combined*: mean of the two; *normalised*: mean of the two, each from 0 for the worst to 1 for the best model of "
    "the method. A model that repeats its training images scores highest: look at samples/step_STEP.png of the run.\n"
)


class Model(NamedTuple):
    """One look at one run."""

    run: Path
    method: str
    values: dict  # that the run was searched with
    step: int
    epoch: float  # passes over the training images so far
    detector: float
    text: float
    combined: float
    normalised: float = 0.0

    def scores(self) -> dict[str, float]:
        """The scores by name."""
        return {name: getattr(self, name) for name in (*SCORES, "normalised")}


def models_of(runs: dict[Path, dict]) -> list[Model]:
    """All models of runs {folder: searched values, "method" among them where there are several}; [] without scores.

    Only of a scorer that gives a detector's and a reader's scores.
    """
    models = [model for run, values in runs.items() for model in looks(run, values)]
    found = []
    for same in by_method(models).values():
        spans = normalised([model.detector for model in same], [model.text for model in same])
        found += [model._replace(normalised=span.item()) for model, span in zip(same, spans)]
    return found


def looks(run: Path, values: dict) -> list[Model]:
    """The models of one run, by step."""
    lines = {line["step"]: line for line in read_log(run) if line["step"] and "combined" in line.get("scores", {})}
    if not lines:
        return []
    settings, method = read_table(run / "config.toml"), values.get("method", "")
    of_step = settings["batch"] * settings["accumulate"]
    own = {name: value for name, value in values.items() if name != "method"}
    return [
        Model(run, method, own, step, step * of_step / line["images"], *(line["scores"][name] for name in SCORES))
        for step, line in sorted(lines.items())
    ]


def by_method(models: list[Model]) -> dict[str, list[Model]]:
    """The models of each method."""
    found = {}
    for model in models:
        found.setdefault(model.method, []).append(model)
    return found


def best_epochs(models: list[Model], score: str) -> list[Model]:
    """The best model of each run, the best run first; of equal ones the earliest."""
    best = {}
    for model in models:
        if model.run not in best or getattr(model, score) > getattr(best[model.run], score):
            best[model.run] = model
    return sorted(best.values(), key=lambda model: -getattr(model, score))


def row(model: Model, scores: tuple[str, ...]) -> list[str]:
    """The cells of a model: its values, step, epoch and scores."""
    values = ", ".join(f"{name} {value}" for name, value in model.values.items())
    return [values, f"{model.step}", f"{model.epoch:.3g}", *(f"{getattr(model, score):.3f}" for score in scores)]


def best_runs(models: list[Model]) -> str:
    """The study's table 2."""
    best = {method: best_epochs(own, "combined")[:BEST] for method, own in by_method(models).items()}
    ranked = sorted(best.items(), key=lambda item: -item[1][0].combined)
    scores = ("combined", "detector", "text")
    rows = [[name, *row(model, scores)] for name, own in ranked for model in own]
    return table(["method", "values", "step", "epoch", *scores], rows)


def best_models(models: list[Model]) -> str:
    """The study's table 3, of the models of one method."""
    scores = ("normalised", "detector", "text")
    ranked = sorted(models, key=lambda model: -model.normalised)[:MODELS]
    return table(["values", "step", "epoch", *scores], [row(model, scores) for model in ranked])


def best_ranks(models: list[Model]) -> str:
    """The study's table 4, of the models of one method that were searched with ranks: "16 (0.97)" and the next best."""
    of_rates = {}
    for model in best_epochs(models, "normalised"):
        rates = ", ".join(f"{name} {value}" for name, value in model.values.items() if name != "rank")
        of_rates.setdefault(rates, []).append(f"{model.values['rank']} ({model.normalised:.2f})")
    rows = [[rates, *(ranks + [""] * BEST)[:BEST]] for rates, ranks in of_rates.items()]
    return table(["values", "best rank", "2nd best", "3rd best"], rows[:RATES])


def markdown(models: list[Model]) -> str:
    """All tables. models: of `models_of`, not empty."""
    parts = [f"# The best epoch of the best runs\n\n{best_runs(models)}\n{NOTE}"]
    for method, own in by_method(models).items():
        of = f" of {method}" if method else ""
        parts.append(f"# The best models{of} by the normalised score\n\n{best_models(own)}")
        if "rank" in own[0].values:
            parts.append(f"# Ranks against the other values{of}\n\n{best_ranks(own)}")
    return "\n".join(parts)

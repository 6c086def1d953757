"""Grid search: python -m experiments.search CONFIG.toml trains every combination of the values under [search].

CONFIG.toml is a config of train.py with one more table, at its end:
    adapter = ["unet.lora:rank={rank}", "text.lora:rank={rank}"]
    out = "runs/ranks"              # empty: runs/ and the name of CONFIG.toml
    [search]
    lr = [1e-5, 1e-4]               # a setting of train.py
    rank = [4, 8]                   # any other name stands in braces in the settings; template keeps its own braces
Or it searches several methods, each with settings of its own beside those of all, of which it takes what it reads:
    [methods.lora]
    adapter = ["unet.lora:rank={rank}"]
    [methods.lora.search]
    rank = [4, 8]
Each combination is a process of its own with the folder OUT/lr=1e-05,rank=4, or OUT/lora/rank=4 (see run.py for the
files beside it). OUT/table.md is rewritten after every run, and OUT/scores.md where a `scorer` scores the samples of
every evaluation (see scores.py). The same command goes on with an interrupted search: finished runs are skipped, begun
ones are resumed, failed ones are tried again.
"""

import itertools
import re
import sys
from pathlib import Path
from typing import NamedTuple

from border import read_table
from data.output.atomic import write_atomic
from experiments.log import summary
from experiments.run import TrainingFailed, train, write_settings
from experiments.scores import best_epochs, markdown, models_of
from experiments.settings import fill, read_by_recipe, train_fields
from experiments.table import table

OWN = {"out", "resume"}  # settings of train.py that the search itself gives


class Grid(NamedTuple):
    """What is searched: the settings of all its runs, and the values of each name that they differ in."""

    method: str  # "" where there is one grid
    settings: dict
    lists: dict[str, list]

    def runs(self, out: Path) -> dict[Path, dict]:
        """{folder of a run: its values}, the last name fastest. ValueError for two runs of one name."""
        grid = combinations(self.lists)
        runs = {out / self.method / name_of(values): values for values in grid}
        if len(runs) < len(grid):
            raise ValueError(f"{len(grid)} combinations have only {len(runs)} different names")
        return runs


def main(argv: list[str]) -> None:
    """Train all combinations of one file and write their tables."""
    if len(argv) != 1 or argv[0].startswith("-"):
        sys.exit(__doc__)
    grids, out = read_search(argv[0])
    runs, settings = {}, {}
    for grid in grids:
        try:
            of_grid = grid.runs(out)
        except ValueError as error:
            raise ValueError(f"{argv[0]}: {error}") from None
        settings |= {run: settings_of(grid.settings, values) for run, values in of_grid.items()}
        runs |= {run: ({"method": grid.method} if grid.method else {}) | values for run, values in of_grid.items()}
    for run in runs:
        write_settings(run, settings[run])
    for number, run in enumerate(runs, 1):
        print(f"{number}/{len(runs)} {run}", flush=True)
        try:
            train(run, settings[run])
        except TrainingFailed:
            pass  # its row says why
        finally:
            write_atomic(out / "table.md", table_of(runs).encode())
            if models := models_of(runs):
                write_atomic(out / "scores.md", markdown(models).encode())
    print(f"everything is in {out / 'table.md'}{f' and {out}/scores.md' if models else ''}")


def read_search(path: str | Path) -> tuple[list[Grid], Path]:
    """The grids of CONFIG.toml and their absolute folder. ValueError names what is wrong in the file."""
    base = read_table(path)
    out, methods = base.pop("out", "") or f"runs/{Path(path).stem}", base.pop("methods", None)
    if methods is None:
        lists = base.pop("search", {})
        grids = [Grid("", base, lists)]
    elif not (isinstance(methods, dict) and methods and all(isinstance(own, dict) for own in methods.values())):
        raise ValueError(f"{path}: methods must be tables [methods.NAME] of settings, found {methods!r}")
    else:
        if "search" in base:
            raise ValueError(f"{path}: with methods each has its own [methods.NAME.search], found [search]")
        grids = []
        for name, own in methods.items():
            lists = own.pop("search", {})
            try:
                grids.append(Grid(name, read_by_recipe(base | own, base) | own, lists))
            except ValueError as error:
                raise ValueError(f"{path}: [methods.{name}] {error}") from None
        if unread := set(base) - {setting for grid in grids for setting in grid.settings}:
            raise ValueError(f"{path}: unknown key {min(unread)!r}, which no method reads")
    for grid in grids:
        check_grid(grid, path)
    return grids, Path(out).resolve()


def check_grid(grid: Grid, path: str | Path) -> None:
    """ValueError for lists that are none, a name that is no setting, and braces without values."""
    _, base, lists = grid
    where = f"[methods.{grid.method}.search]" if grid.method else "[search]"
    if not (isinstance(lists, dict) and lists and all(isinstance(v, list) and v for v in lists.values())):
        raise ValueError(f"{path}: {where} must give each name a list of at least one value, found {lists!r}")
    known = train_fields() - OWN
    braced = set(re.findall(r"\{(\w+)\}", str([v for name, v in (base | lists).items() if name != "template"])))
    for key in sorted(set(base) - known) + sorted(set(lists) - known - braced):
        raise ValueError(f"{path}: unknown key {key!r}, neither a setting to search nor a {{name}} in a setting")
    for name in sorted(braced - set(lists)):
        raise ValueError(f"{path}: {{{name}}} stands in a setting and {where} has no such name")


def combinations(lists: dict[str, list]) -> list[dict]:
    """{"a": [1, 2], "b": [3]} -> [{"a": 1, "b": 3}, {"a": 2, "b": 3}], the last name fastest."""
    return [dict(zip(lists, values)) for values in itertools.product(*lists.values())]


def settings_of(base: dict, values: dict) -> dict:
    """The settings of one run: `values` that are settings of train.py replace the base's, all fill {name} in texts."""
    settings = base | {name: value for name, value in values.items() if name in train_fields()}
    return {name: value if name == "template" else fill(value, values) for name, value in settings.items()}


def name_of(values: dict) -> str:
    """{"lr": 1e-05, "adapter": ["bitfit", "norm"]} -> "lr=1e-05,adapter=bitfit+norm", a folder's name."""
    texts = (f"{name}={'+'.join(map(str, v)) if isinstance(v, list) else v}" for name, v in values.items())
    return ",".join(re.sub(r"[^a-zA-Z0-9.+=_-]+", "-", text) for text in texts)


def table_of(runs: dict[Path, dict]) -> str:
    """{run folder: searched values} -> Markdown, one row a run in the order of the combinations.

    Where the samples are scored, with the best epoch of each run by its combined score.
    """
    best = {model.run: model for model in best_epochs(models_of(runs), "combined")}
    scores = {run: {"best epoch": model.epoch} | model.scores() for run, model in best.items()}
    rows = [summary(run) | scores.get(run, {}) | values for run, values in runs.items()]
    columns = list(dict.fromkeys([*next(iter(runs.values())), *(name for row in rows for name in row)]))
    cells = [[row.get(name, "") for name in columns] for row in rows]
    return table(columns, [[f"{x:.5g}" if isinstance(x, float) else str(x) for x in line] for line in cells])


if __name__ == "__main__":
    try:
        main(sys.argv[1:])
    except (ValueError, OSError) as error:
        sys.exit(f"error: {error}")

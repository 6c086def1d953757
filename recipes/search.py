"""Grid search: python -m recipes.search CONFIG.toml trains every combination of the values listed under [search].

CONFIG.toml is a config of train.py with one more table, at its end:
    adapter = ["unet.lora:rank={rank}", "text.lora:rank={rank}"]
    out = "runs/ranks"              # empty: runs/ and the name of CONFIG.toml
    [search]
    lr = [1e-5, 1e-4]               # a setting of train.py
    rank = [4, 8]                   # any other name stands in braces in the settings; template keeps its own braces
Each is a process of its own with the folder OUT/lr=1e-05,rank=4; beside it lie its settings (.toml), what it printed
(.log) and, if it failed, the last line of that (.error). OUT/table.md is rewritten after every run. The same command
goes on with an interrupted search: finished runs are skipped, begun ones resumed, failed ones tried again.
"""

import ast
import itertools
import re
import signal
import subprocess
import sys
import tomllib
from dataclasses import make_dataclass
from pathlib import Path

import launch
from data.output.atomic import write_atomic
from training.log import read_log, read_numbers

TRAIN = Path(__file__).resolve().parent.parent / "train.py"
BRACES = r"\{(\w+)\}"
LEFT = ("adapter.safetensors", "model.safetensors", "model", "control.safetensors", "control")  # by a finished run


def main(argv):
    if len(argv) != 1 or argv[0].startswith("-"):
        sys.exit(__doc__)
    base, table, out = read(argv[0])
    runs = {out / name_of(values): values for values in combinations(table)}
    if len(runs) < len(grid := combinations(table)):
        raise ValueError(f"{argv[0]}: {len(grid)} combinations have only {len(runs)} different names")
    for run, values in runs.items():
        write_settings(run, config_of(base, values))
    for number, run in enumerate(runs, 1):
        print(f"{number}/{len(runs)} {run}", flush=True)
        stopped = train(run) if not finished(run) else []
        write_atomic(out / "table.md", table_of(runs).encode())
        if stopped:
            sys.exit(128 + stopped[0])
    print(f"everything is in {out / 'table.md'}")


def read(path):
    """Settings, lists to search and the absolute folder of CONFIG.toml. ValueError names what is wrong in the file."""
    base = tomllib.loads(Path(path).read_text())
    table, out = base.pop("search", {}), base.pop("out", "") or f"runs/{Path(path).stem}"
    if not (isinstance(table, dict) and table and all(isinstance(v, list) and v for v in table.values())):
        raise ValueError(f"{path}: [search] must give each name a list of at least one value, found {table!r}")
    known = fields() - {"out", "resume"}  # the search itself gives these two
    asked = set(re.findall(BRACES, str([v for name, v in (base | table).items() if name != "template"])))
    for key in sorted(set(base) - known) + sorted(set(table) - known - asked):
        raise ValueError(f"{path}: unknown key {key!r}, neither a setting to search nor a {{name}} in a setting")
    for name in sorted(asked - set(table)):
        raise ValueError(f"{path}: {{{name}}} stands in a setting and [search] has no such name")
    return base, table, Path(out).resolve()


def fields():
    """The names of train.py's settings, read from its source: it is a script, and nothing here imports it."""
    config = next(node for node in ast.parse(TRAIN.read_text()).body if getattr(node, "name", "") == "Config")
    return {line.target.id for line in config.body if isinstance(line, ast.AnnAssign)}


def combinations(table):
    """{"a": [1, 2], "b": [3]} -> [{"a": 1, "b": 3}, {"a": 2, "b": 3}], the last name fastest."""
    return [dict(zip(table, values)) for values in itertools.product(*table.values())]


def config_of(base, values):
    """The settings of one run: `values` that are settings of train.py replace the base's, all fill {name} in texts."""

    def filled(value):
        return re.sub(BRACES, lambda m: str(values[m[1]]), value) if isinstance(value, str) else value

    known = fields()
    settings = base | {name: value for name, value in values.items() if name in known}
    return settings | {
        name: [filled(item) for item in value] if isinstance(value, list) else filled(value)
        for name, value in settings.items()
        if name != "template"
    }


def name_of(values):
    """{"lr": 1e-05, "adapter": ["bitfit", "norm"]} -> "lr=1e-05,adapter=bitfit+norm", a folder's name."""
    texts = (f"{name}={'+'.join(map(str, v)) if isinstance(v, list) else v}" for name, v in values.items())
    return ",".join(re.sub(r"[^a-zA-Z0-9.+=_-]+", "-", text) for text in texts)


def write_settings(run, config):
    """OUT/NAME.toml. ValueError if the run was begun with other settings: its row would be of something else."""
    path, text = Path(f"{run}.toml"), launch.to_toml(make_dataclass("Config", config)(**config))
    if run.exists() and path.exists() and tomllib.loads(path.read_text()) != tomllib.loads(text):
        raise ValueError(f"{path}: the run was begun with other settings; delete {run} or name another folder by out")
    write_atomic(path, text.encode())


def finished(run):
    return any((run / name).exists() for name in LEFT)


def train(run):
    """Train or go on with one run; a failure ends in OUT/NAME.error. Returns the signals caught and passed on to it."""
    caught, error, resume = [], Path(f"{run}.error"), ["--resume"] if (run / "config.toml").exists() else []
    command = [sys.executable, "-u", TRAIN, f"{run}.toml", "--out", run, *resume]  # -u: its error is the last line
    with open(f"{run}.log", "ab") as log:
        process = subprocess.Popen(command, stdout=log, stderr=subprocess.STDOUT)

        def pass_on(number, frame):  # train.py ends its step, saves and leaves: wait for that
            caught.append(number)
            process.send_signal(number)

        before = {number: signal.signal(number, pass_on) for number in (signal.SIGINT, signal.SIGTERM)}
        code = process.wait()
    for number, handler in before.items():
        signal.signal(number, handler)
    error.unlink(missing_ok=True)
    if code and not caught:
        printed = Path(f"{run}.log").read_text(errors="replace").replace("\r", "\n").strip()
        write_atomic(error, (printed.split("\n")[-1] if code > 0 else f"killed by signal {-code}").encode())
    return caught


def row_of(run):
    """What a run's files tell: its state, trained seconds, last and best losses, and the numbers of metrics.json."""
    error, lines = Path(f"{run}.error"), read_log(run)
    error = error.read_text() if error.exists() else ""
    seconds, losses = ([line[name] for line in lines if name in line] for name in ("seconds", "loss"))
    held_out = [line["val"] for line in lines if "val" in line and line["step"]]  # step 0 has learned nothing yet
    row = {
        "state of run": error or ("done" if finished(run) else "begun" if run.exists() else "waiting"),
        "seconds trained": sum(now for now, then in zip(seconds, seconds[1:] + [0]) if then < now),  # resumed: anew
        "train loss": sum(losses[-50:]) / len(losses[-50:]) if losses else "",
        "best val": min(held_out, default=""),
    }
    return row | {name: x for name, x in read_numbers(run).items() if isinstance(x, (int, float))}


def table_of(runs):
    """{run folder: searched values} -> Markdown, one row a run in the order of the combinations."""

    def cell(value):
        return (f"{value:.5g}" if isinstance(value, float) else str(value)).replace("|", "\\|").replace("\n", " ")

    rows = [row_of(run) | values for run, values in runs.items()]
    columns = list(dict.fromkeys([*next(iter(runs.values())), *(name for row in rows for name in row)]))
    lines = [columns, ["---"] * len(columns), *([row.get(name, "") for name in columns] for row in rows)]
    return "".join("| " + " | ".join(map(cell, line)) + " |\n" for line in lines)


if __name__ == "__main__":
    try:
        main(sys.argv[1:])
    except (ValueError, OSError) as error:
        sys.exit(f"error: {error}")

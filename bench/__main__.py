"""The bench: python -m bench [--rows NAME,...] writes docs/bench.md, ours and the peer's side by side.

Each row is two processes that take a step in turn (interleave.py); the ratio is the median of the pairs'. What was
measured stays in docs/bench.json: a call without --rows measures the rows that are not there yet, so that an
interrupted bench goes on, and --rows measures these anew.
"""

import argparse
import json
import os
import re
import subprocess
import sys
from datetime import date
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from bench.interleave import GIB, ROOT, Failed, measure, summary
from bench.rows import ROWS, Row
from bench.sizes import FULL, TINY

PACKAGES = ("torch", "diffusers", "transformers", "peft")


def main(argv: list[str] | None = None) -> None:
    """The command line: measure rows, keep them, write the table."""
    parser = argparse.ArgumentParser(prog="python -m bench", description=__doc__.split("\n\n")[0])
    parser.add_argument("--rows", default="", help=f"which to measure anew, with commas between: {', '.join(ROWS)}")
    parser.add_argument("--rounds", type=int, default=5, help="pairs of steps of each row")
    parser.add_argument("--depth", type=int, help="blocks of the DiT, fewer than its 28: a faster bench that says so")
    parser.add_argument("--steps", type=int, help="steps of the guided DDIM, fewer than 50, likewise")
    parser.add_argument("--clock", choices=("wall", "cpu"), default="wall", help="cpu: for a machine that others use")
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cpu")
    parser.add_argument("--against", default="", help="the commit that the row `main` compares with")
    parser.add_argument("--tiny", action="store_true", help="small models: does the bench itself work?")
    parser.add_argument("--out", type=Path, default=ROOT / "docs" / "bench.md", help="the page; its .json lies beside")
    options = parser.parse_args(argv)
    if unknown := [name for name in filter(None, options.rows.split(",")) if name not in ROWS]:
        parser.error(f"no row {unknown[0]!r}; the rows are {', '.join(ROWS)}")
    kept = options.out.with_suffix(".json")
    results = json.loads(kept.read_text()) if kept.exists() else {}
    wanted = [name for name in options.rows.split(",") if name] or [name for name in ROWS if name not in results]
    size = (TINY if options.tiny else FULL) | {"against": options.against}
    size |= {"depth": options.depth or size["depth"], "steps": options.steps or size["steps"]}
    for name in wanted:
        if name == "main" and not options.against:
            print("main: left out, it needs --against COMMIT")
            continue
        print(f"{name} ...", flush=True)
        results[name] = {"on": machine(options.device, options.clock), "command": command(name, options)}
        try:
            row = ROWS[name]
            results[name] |= {
                "size": about(name, size),
                **summary(measure(row, size, options.device, options.rounds), options.clock),
            }
        except Failed as error:
            results[name]["failed"] = str(error)
        kept.write_text(json.dumps(results, indent=1) + "\n")
        print(line(name, ROWS[name], results[name]), flush=True)
    options.out.write_text(page(results))
    print(f"{options.out} has {len(results)} of {len(ROWS)} rows")


def command(name: str, options: argparse.Namespace) -> str:
    """What measures this row again."""
    given = {name: getattr(options, name) for name in ("depth", "steps", "against") if getattr(options, name)}
    given |= {"rounds": options.rounds} | ({"clock": "cpu"} if options.clock == "cpu" else {})
    return f"python -m bench --rows {name}" + "".join(f" --{key} {value}" for key, value in given.items())


def machine(device: str, clock: str) -> str:
    """What a row is measured on and with, and when."""
    cpuinfo, threads = Path("/proc/cpuinfo"), os.environ.get("OMP_NUM_THREADS") or os.cpu_count()
    name = re.search(r"model name\s*: (.*)", cpuinfo.read_text()) if cpuinfo.exists() else None
    where = f"{name[1] if name else os.uname().machine}, {threads} of {os.cpu_count()} cores"
    if device == "cuda":
        query = ["nvidia-smi", "--query-gpu=name", "--format=csv,noheader"]
        where = subprocess.run(query, capture_output=True, text=True).stdout.strip() + ", CUDA events"
    found = []
    for package in PACKAGES:
        try:
            found.append(f"{package} {version(package)}")
        except PackageNotFoundError:
            continue
    seconds = {"wall": "seconds by the wall", "cpu": "seconds of processor time"}[clock]
    total = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / GIB
    return f"{date.today()}, {where}, {total:.0f} GiB, {', '.join(found)}, {seconds}"


def about(name: str, size: dict) -> str:
    """What is not the published size, for the row's first column."""
    row, less = ROWS[name], []
    if size["side"] < FULL["side"] and not row.ours.startswith(("-", "main")):
        less.append("tiny models")
    elif size["depth"] < FULL["depth"] and row.ours.split(":")[1] in size["has_depth"]:
        less.append(f"{size['depth']} of {FULL['depth']} blocks")
    if name == "ddim":
        less.append(f"{size['steps']} steps")
    return ", ".join(less)


def asked(ratio: float, limit: float | None) -> str:
    """The ratio, and what is asked of it."""
    if limit is None:
        return f"{ratio:.2f}"
    return f"{ratio:.2f} (>= {-limit:.2f})" if limit < 0 else f"{ratio:.2f} (<= {limit:.2f})"


def line(name: str, row: Row, result: dict) -> str:
    """The row of the table."""
    what = row.what + (f", {result['size']}" if result.get("size") else "")
    if "failed" in result:
        return f"| `{name}` | {what} | {row.named} | failed: {result['failed']} | | | | |"
    unit, factor = ("s", 1) if result["other"] > 0.1 else ("ms", 1000)
    times = [f"{factor * result[side]:.2f} {unit}" for side in ("ours", "other")]
    spread = f"{result['least']:.2f} to {result['most']:.2f}, {result['rounds']}"
    peaks = f"{result['peak']:.2f} / {result['other_peak']:.2f}"
    return (
        f"| `{name}` | {what} | {row.named} | {times[0]} | {times[1]} | {asked(result['ratio'], row.time)} | {spread} "
        f"| {peaks} | {asked(result['memory'], row.memory)} |"
    )


def page(results: dict) -> str:
    """docs/bench.md."""
    places = list(dict.fromkeys(result["on"] for result in results.values()))
    text = [
        "# Bench\n",
        "`python -m bench` on random weights: ours and another's in processes of their own, a step of each in turn. A",
        "ratio is the median of the pairs', ours / other's, with what is asked of it in brackets; beside it are the",
        "least and the most, and the number of pairs. Peaks are GiB of resident memory during a step, weights and the",
        "libraries included.\n",
        *(f"- {place}" for place in places),
        "- no GPU was at hand; `python -m bench --device cuda` measures one, by CUDA events\n"
        if not any("CUDA events" in place for place in places)
        else "",
        "| row | what | other | ours | other's | ratio of times | spread, pairs | peaks | ratio of peaks |",
        "|---|---|---|---:|---:|---:|---:|---:|---:|",
        *(line(name, ROWS[name], results[name]) for name in ROWS if name in results),
        "\nEach row by its command:\n\n```bash",
        *(results[name]["command"] for name in ROWS if name in results),
        "```",
    ]
    return "\n".join(text) + "\n"


if __name__ == "__main__":
    sys.exit(main())

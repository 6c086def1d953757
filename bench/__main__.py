"""The bench: python -m bench [--rows NAME,...] writes docs/bench.md, ours and the peer's side by side.

Each row is two processes that take a step in turn (timing/); the ratio is the median of the pairs'. What was
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

from bench.page import about, line, page
from bench.rows import ROWS
from bench.sizes import FULL, TINY
from bench.timing.child import GIB, ROOT, Failed
from bench.timing.interleave import measure, summary

LESS = ("depth", "steps", "xl_side")  # what a call may take fewer of than was published
PACKAGES = ("torch", "diffusers", "transformers", "peft")


def main(argv: list[str] | None = None) -> None:
    """The command line: measure rows, keep them, write the table."""
    parser = argparse.ArgumentParser(prog="python -m bench", description=__doc__.split("\n\n")[0])
    parser.add_argument("--rows", default="", help=f"which to measure anew, with commas between: {', '.join(ROWS)}")
    parser.add_argument("--rounds", type=int, default=5, help="pairs of steps of each row")
    parser.add_argument("--depth", type=int, help="blocks of the DiT, fewer than its 28: a faster bench that says so")
    parser.add_argument("--steps", type=int, help="steps of the guided DDIM, fewer than 50, likewise")
    parser.add_argument("--xl-side", type=int, help="pixels of Stable Diffusion XL's images, fewer than 1024, likewise")
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
    size |= {name: getattr(options, name) or size[name] for name in LESS}
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
    given = {name.replace("_", "-"): getattr(options, name) for name in (*LESS, "against") if getattr(options, name)}
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


if __name__ == "__main__":
    sys.exit(main())

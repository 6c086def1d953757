"""Try the claims and write docs/evidence.md: python -m evidence [--flag value]...

Each claim writes docs/evidence/NAME.json, and the page is made of these files alone. What --work holds already is not
trained or drawn again, so that the command goes on where it was stopped.
"""

import json
import os
import sys
from dataclasses import dataclass, field
from datetime import date
from importlib import import_module
from pathlib import Path

import torch

import launch
from data.output.atomic import write_atomic
from ops.device import bf16

CLAIMS = {  # module: title, in the order of the page
    "starts": "Rows that start near",
    "superclass": "Superclass guidance",
    "composition": "NOT",
    "control": "A mask says where",
    "few_steps": "Few steps",
    "sampler_steps": "Many steps",
    "subject": "A new subject",
    "logo": "A logo",
    "parameters": "Few weights",
    "bayesian": "Gaussian weights",
    "gain": "A classifier that gains",
    "magnetic_tile": "A classifier of real photographs",
}
PHOTOGRAPHED = "magnetic_tile"  # the claim that needs photographs which do not ship


@dataclass
class Config:
    claim: list[str] = field(default_factory=list)  # to be tried, repeat; none: all
    work: str = "runs/evidence"  # folder of the runs
    out: str = "docs"  # folder of evidence.md and evidence/
    photographs: str = ""  # folder of the magnetic tiles, images/CLASS and masks/CLASS; empty: without that claim
    quick: bool = False  # 20 steps, 1 seed, 2 samples of each: does everything run; says nothing about the claims


def main(argv=None):
    cfg = launch.configure(Config, argv)
    if unknown := [name for name in cfg.claim if name not in CLAIMS]:
        raise ValueError(f"unknown claim {unknown[0]!r}; there are {', '.join(CLAIMS)}")
    out = Path(cfg.out)
    for name in cfg.claim or CLAIMS:
        more = [cfg.photographs] if name == PHOTOGRAPHED else []
        if more and not Path(cfg.photographs, "images").is_dir():
            print(f"{name}: left out, --photographs names no folder with images/ in it, found {cfg.photographs!r}")
            continue
        numbers = import_module(f"evidence.{name}").numbers(Path(cfg.work), cfg.quick, *more)
        stored = {"made": made(cfg), "numbers": numbers}
        write_atomic(out / "evidence" / f"{name}.json", json.dumps(stored, indent=1).encode() + b"\n")
        if (picture := Path(cfg.work) / f"{name}.png").exists():
            write_atomic(out / "evidence" / picture.name, picture.read_bytes())
        write_atomic(out / "evidence.md", page(out / "evidence").encode())
    print(f"{out}/evidence.md is made of the files in {out}/evidence")


def made(cfg) -> str:
    """When and on what, for the foot of a section."""
    threads, precision = torch.get_num_threads(), bf16("auto", torch.device("cpu"))
    return (
        f"{date.today()}{', in the quick form, which says nothing' if cfg.quick else ''}: {processor()}, {threads} "
        f"thread{'s' * (threads > 1)}, {'bfloat16 autocast' if precision else 'float32'}"
    )


def processor() -> str:
    """Its name, where the system tells it."""
    cpuinfo = Path("/proc/cpuinfo")
    names = (
        [line.partition(":")[2].strip() for line in cpuinfo.read_text().splitlines() if line.startswith("model name")]
        if cpuinfo.exists()
        else []
    )
    return f"{names[0] if names else os.uname().machine}, {os.cpu_count()} cores"


def page(folder: Path) -> str:
    """The page, of the claims whose numbers are there."""
    parts = [
        "# What was claimed, and what shows here\n\n"
        "Each section is a published claim, tried with the small models and the generated photographs that ship "
        "with the package, in three runs with seeds of their own where no other number is given. A cell is the "
        "mean of the runs, with the smallest and largest in brackets. A claim *holds here* if every run on one "
        "side is above every run on the other; with three runs each, equal methods reach that by chance one time "
        "in twenty. What holds here need not hold for a large model and real photographs, nor the other way "
        "round.\n\n"
        "`python -m evidence` writes this page; the numbers are in [evidence](evidence/).\n"
    ]
    for name, title in CLAIMS.items():
        if (folder / f"{name}.json").exists():
            stored = json.loads((folder / f"{name}.json").read_text())
            module = import_module(f"evidence.{name}")
            parts.append(
                f"## {title}\n\n{module.__doc__.strip()}\n\n{module.section(stored['numbers'])}\n"
                f"`python -m evidence --claim {name}{' --photographs FOLDER' * (name == PHOTOGRAPHED)}`, "
                f"{stored['made']}.\n"
            )
    return "\n".join(parts)


if __name__ == "__main__":
    try:
        main()
    except (ValueError, OSError) as error:
        sys.exit(f"error: {error}")

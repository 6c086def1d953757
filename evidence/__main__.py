"""Try the claims and write docs/evidence.md: python -m evidence [--flag value]...

Each claim writes docs/evidence/NAME.json, and the page is made of these files alone. What --work holds already is not
trained or sampled again, so that the command goes on where it was stopped.
"""

import json
import os
import re
from dataclasses import dataclass
from datetime import date
from importlib import import_module
from pathlib import Path
from types import ModuleType

import torch

from border import to_json
from config import option, read, run_script
from data.output.atomic import write_atomic
from evidence.results import HOLDS, NEITHER, REVERSE, Statement
from experiments.table import table
from ops.device import bf16

CLAIMS = {  # folder.module of evidence/claims: title, in the order of the page
    "sampling.superclass": "Superclass guidance",
    "sampling.composition": "Composable guidance",
    "sampling.few_steps": "Distillation (LCM)",
    "sampling.sampler_steps": "Sampler steps (DDIM, DDPM)",
    "fine_tuning.starts": "Initial class embeddings",
    "fine_tuning.parameters": "Few trainable weights (BitFit, LoRA)",
    "fine_tuning.flow": "A flow backbone (SiT)",
    "fine_tuning.control": "ControlNet",
    "fine_tuning.subject": "DreamBooth, LoRA, Textual Inversion: a subject",
    "fine_tuning.logo": "DreamBooth, LoRA, Textual Inversion: a logo",
    "fine_tuning.bayesian": "Bayesian weights (BNN)",
    "fine_tuning.bayesian_arms": "Bayesian weights of four methods, and their KL",
    "classifiers.gain": "A classifier that learns from samples",
    "classifiers.filled": "Defects filled into masks",
    "classifiers.magnetic_tile": "A classifier of real photographs",
}
NAMES = {path.partition(".")[2]: path for path in CLAIMS}
QUICK, UNMEASURED = "in the quick form, which says nothing", "not measured"
PHOTOGRAPHED = "magnetic_tile"  # the claim that needs photographs which do not ship


@dataclass
class Claims:
    """The claims"""

    claim: list[str] = option([], "to be tried, repeat; none: all", choices=lambda: list(NAMES))
    work: str = option("runs/evidence", "folder of the runs")
    out: str = option("docs", "folder of evidence.md and evidence/")
    photographs: str = option(
        "", "folder of the magnetic tiles, images/CLASS and masks/CLASS; empty: without that claim"
    )
    quick: bool = option(
        False, "20 steps, 1 seed, 2 samples of each: does everything run; says nothing about the claims"
    )


def main(argv: list[str] | None = None) -> None:
    """Try the claims, and write the page after each."""
    config = read(argv, Claims, title=__doc__)[Claims]
    out = Path(config.out)
    for name in config.claim or NAMES:
        more = [config.photographs] if name == PHOTOGRAPHED else []
        if more and not Path(config.photographs, "images").is_dir():
            print(f"{name}: left out, --photographs names no folder with images/ in it, found {config.photographs!r}")
            continue
        numbers = module_of(name).numbers(Path(config.work), config.quick, *more)
        stored = {"made": made(config.quick), "numbers": numbers}
        write_atomic(out / "evidence" / f"{name}.json", to_json(stored, indent=1).encode() + b"\n")
        if (picture := Path(config.work) / f"{name}.png").exists():
            write_atomic(out / "evidence" / picture.name, picture.read_bytes())
        write_atomic(out / "evidence.md", page(out / "evidence").encode())
    print(f"{out}/evidence.md is made of the files in {out}/evidence")


def module_of(name: str) -> ModuleType:
    """The module of a claim."""
    return import_module(f"evidence.claims.{NAMES[name]}")


def made(quick: bool) -> str:
    """When and on what, for the foot of a section."""
    threads, autocast = torch.get_num_threads(), bf16("auto", torch.device("cpu"))
    return (
        f"{date.today()}{f', {QUICK}' if quick else ''}: {processor()}, {threads} "
        f"thread{'s' * (threads > 1)}, {'bfloat16 autocast' if autocast else 'float32'}"
    )


def processor() -> str:
    """Its name where the system tells it, and its number of cores."""
    cpuinfo = Path("/proc/cpuinfo")
    name = re.search(r"^model name\s*: (.*)", cpuinfo.read_text(), re.M) if cpuinfo.exists() else None
    return f"{name[1].strip() if name else os.uname().machine}, {os.cpu_count()} cores"


INTRODUCTION = f"""# Results

Claims of papers, tried with the small models and the generated photographs that ship with the package; three runs each,
with seeds of their own, where no other number is given. Each claim is a few statements. A statement *{HOLDS}* if every
run on one side is above (or below, as it says) every run on the other; *{REVERSE}* if it is the other way round; else
there is *{NEITHER}* beyond the spread of the runs. With three runs each, equal methods hold by chance one time in
twenty. In the tables a cell is the mean of the runs, with the smallest and the largest in brackets. The results need
not carry over to large models and real photographs.
"""


def page(folder: Path) -> str:
    """The page, of the claims whose numbers are in the folder."""
    summary, sections = [], []
    for name, path in NAMES.items():
        if not (folder / f"{name}.json").exists():
            continue
        stored, module, title = read_json(folder / f"{name}.json"), module_of(name), CLAIMS[path]
        claim, _, setup = module.__doc__.strip().partition("\n\n")
        if QUICK in stored["made"]:  # the numbers show that the command runs, and nothing else
            summary.append([f"[{title}](#{anchor(title)})", claim, UNMEASURED, "none yet"])
            command = f"`python -m evidence --claim {name}`"
            sections.append(
                f"## {title}\n\nVerdict: **{UNMEASURED}**.\n\nClaim: *{claim}*\n\n{setup}\n\n{command} measures it.\n"
            )
            continue
        statements, details = module.result(stored["numbers"])
        first = statements[0]
        numbers = f"{first.text}: {first.numbers}"
        summary.append([f"[{title}](#{anchor(title)})", claim, overall(statements), numbers])
        lines = "".join(f"- **{found}**: {text} ({numbers})\n" for text, found, numbers in statements)
        command = f"python -m evidence --claim {name}{' --photographs FOLDER' * (name == PHOTOGRAPHED)}"
        sections.append(
            f"## {title}\n\nVerdict: **{overall(statements)}**.\n\n{lines}\nClaim: *{claim}*\n\n{setup}\n\n"
            f"{details}\n`{command}`, {stored['made']}.\n"
        )
    head = table(["", "claim", "verdict", "numbers of the first statement, means of the runs"], summary).replace(
        "---:", "---"
    )
    foot = "`python -m evidence` writes this page from the numbers in [evidence](evidence/) alone.\n"
    return "\n".join([INTRODUCTION, head, foot, *sections])


def read_json(path: Path) -> dict:
    """A file of numbers; in those written before, the key of a sampling variant was "way"."""
    return json.loads(path.read_text("utf-8").replace('"way":', '"variant":'))


def overall(statements: list[Statement]) -> str:
    """The verdict on a claim: how many of its statements hold."""
    verdicts = [statement.verdict for statement in statements]
    held = verdicts.count(HOLDS)
    if not held:
        return "does not hold" if REVERSE in verdicts else "no difference"
    return "holds" if held == len(verdicts) else f"holds in part ({held} of {len(verdicts)} statements)"


def anchor(title: str) -> str:
    """The fragment of a heading's link."""
    return re.sub(r"[^a-z0-9 -]", "", title.lower()).replace(" ", "-")


if __name__ == "__main__":
    run_script(main)

"""Do the same commands work at full size? `python docs/full_size.py` tries them here and writes docs/full_size.md.

A DiT-XL/2 at 256 pixels and Stable Diffusion's autoencoder, random weights in the layouts of the published files, are
read, trained for a few steps and sampled from, on the processor of a Linux or macOS machine. Each command is a process
of its own; its peak is the resident memory that the system counted, mapped pages of the checkpoint included.
docs/full_size_sd.py does the same for Stable Diffusion, with the functions of this file.
"""

import argparse
import json
import os
import re
import resource
import shlex
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from datetime import date
from importlib.metadata import version
from pathlib import Path
from typing import NamedTuple

# torch and the package are imported by the parts alone: a child's count begins with the memory of its parent
ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))
GIB = 2**30
MAXRSS = (1 if sys.platform == "darwin" else 1024) / GIB  # macOS counts memory in bytes, Linux in KiB


class Size(NamedTuple):
    model: str  # one of dit.SIZES
    side: int  # of an image, in pixels
    vae: dict  # fields of VAEConfig that are not Stable Diffusion's
    disk: float  # GiB that must be free
    file: str  # in which the DiT is


FULL = Size("DiT-XL/2", 256, {}, 4, "DiT-XL-2-256x256.pt")
TINY = Size("DiT-T/2", 64, {"channels": (8, 8, 8, 8), "layers": 1, "groups": 4}, 0.1, "DiT-T-2-64x64.pt")
TRAIN = (
    "train.py --model WORK/{0} --vae WORK/vae --data WORK/images --adapter lora:rank=8 --batch 1 --flips none "
    "--rotations 0 --count 1 --sample-steps 2 --measure 0 --cache= --device cpu --steps {1} --out WORK/run{1}"
)
SAMPLE = "sample.py --run WORK/run3 --steps 2 --guidance 4 --count 1 --classes one --device cpu --out WORK/drawn"


class Row(NamedTuple):
    what: str
    command: str
    seconds: float | None  # None: it failed
    peak: float  # GiB
    failure: str = ""  # why, where the row's own command failed
    printed: str = ""  # its last line: where a part's JSON is, after what loading and training print


def make(work: Path, size: Size) -> dict:
    """Weights N(0, 0.02), those that start at zero too, and images of two classes; returns what it was done with."""
    import torch

    from data.generated.photographs import image
    from data.output.grid import save_image
    from dit import DiT
    from ops.device import bf16
    from unet import VAE, VAEConfig
    from weights.convert import export

    torch.manual_seed(0)
    model = DiT.from_name(size.model, image_size=size.side)
    for parameter in (p for p in model.parameters() if p.requires_grad):  # the table of positions stays
        torch.nn.init.normal_(parameter, std=0.02)
    torch.save(model.state_dict(), work / size.file)
    export(VAE(VAEConfig(**size.vae)), work / "vae", "vae-diffusers")
    for i, (name, look) in enumerate([("one", "good"), ("two", "crack")] * 2):
        save_image(work / "images" / name / f"{i}.png", image("hazelnut", look, "few", i, size=size.side)[0])
    values = [tensor.numel() for tensor in model.state_dict().values()]
    return {
        "tensors": len(values),
        "values": sum(values),
        "threads": torch.get_num_threads(),
        "precision": "bfloat16 autocast" if bf16("auto", torch.device("cpu")) else "float32",
    }


def stage(began: float) -> tuple[float, float]:
    """(seconds since then, peak of this process so far in GiB)."""
    return time.perf_counter() - began, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * MAXRSS


def read_by(load: Callable) -> list:
    """`stage` of the imports, of load(weights) -> models, and of the same with every weight read once."""
    began = time.perf_counter()
    import weights

    imported, began = stage(began), time.perf_counter()
    models = load(weights)
    loaded = stage(began)
    for model in models:
        for parameter in model.parameters():
            parameter.detach().sum()
    return [imported, loaded, stage(began)]


def read(work: Path, size: Size) -> list:
    return read_by(lambda weights: [weights.load(work / size.file)])


def guided_step(model: Callable, shape, cond, null, schedule) -> float:
    """Seconds of one guided DDIM step for one image: half of what 4 steps take longer than 2."""
    import torch

    import sampling
    from ops.device import autocast

    seconds = {}
    with autocast("auto", torch.device("cpu")):
        for steps in (2, 2, 4):  # the first call reads the weights and does not count
            began = time.perf_counter()
            sampling.sample_latents(
                sampling.batched_cfg(model, cond, null, 4.0), range(1), shape, schedule, "ddim", steps
            )
            seconds[steps] = time.perf_counter() - began
    return (seconds[4] - seconds[2]) / 2


def draw(work: Path, size: Size) -> float:
    import torch

    import sampling
    import weights

    model = weights.load(work / size.file, expect="dit", dtype=torch.float32)
    return guided_step(model, model.latent_shape, torch.tensor([0]), model.null, sampling.Schedule.linear())


PARTS = {"make": make, "read": read, "draw": draw}


def words(command: str, work: Path) -> list[str]:
    """The command's words as a shell splits them, WORK in them replaced."""
    return [word.replace("WORK", str(work)) for word in shlex.split(command)]


def run(what: str, work: Path, command: str) -> Row:
    """One row: python with this command, WORK in it replaced, from the repository's root, until it ends."""
    arguments, began = words(command, work), time.perf_counter()
    with open(work / "stdout.txt", "w") as out, open(work / "stderr.txt", "w") as err:
        process = subprocess.Popen([sys.executable, *arguments], cwd=ROOT, stdout=out, stderr=err)
        _, status, usage = os.wait4(process.pid, 0)  # unlike `wait`, it tells the memory of this one child
    seconds, failure, process.returncode = time.perf_counter() - began, "", os.waitstatus_to_exitcode(status)
    if process.returncode:  # a negative one is the signal that ended it, -9 where memory ran out
        said = (work / "stderr.txt").read_text().strip().replace(str(work), "WORK")
        print(said, file=sys.stderr)
        failure = f"exit status {process.returncode}, {said.splitlines()[-1] if said else 'nothing said'}"
    printed = (work / "stdout.txt").read_text().splitlines()[-1:]
    return Row(what, f"`python {command}`", None if failure else seconds, usage.ru_maxrss * MAXRSS, failure, *printed)


def staged(row: Row, *whats: str) -> list[Row]:
    """A row for each stage that the command printed, where the memory of each includes that of the ones before."""
    stages = [(None, row.peak)] * len(whats) if row.failure else json.loads(row.printed)
    commands = ["the same process, from there on"] + ["the same"] * (len(whats) - 2)
    later = [Row(what, command, *found) for what, command, found in zip(whats[1:], commands, stages[1:], strict=True)]
    return [row._replace(what=whats[0], seconds=stages[0][0], peak=stages[0][1]), *later]


def reading(row: Row, load: str = "weights.load") -> list[Row]:
    """The three rows of `read`."""
    return staged(row, row.what, load, f"{load}, every weight read once")


def guided(row: Row) -> Row:
    """The row of `draw`: seconds are those of the step, not of the process."""
    return row if row.failure else row._replace(seconds=json.loads(row.printed))


def machine(made: dict, load: float) -> list[str]:
    """The first lines of a page's list: what it was measured on and with."""
    cpuinfo, memory = Path("/proc/cpuinfo"), os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / GIB
    name = re.search(r"model name\s*: (.*)", cpuinfo.read_text()) if cpuinfo.exists() else None
    return [
        f"- {name[1] if name else os.uname().machine}, {os.cpu_count()} cores, "
        f"{memory:.1f} GiB of memory, load average {load:.1f} before the start",
        f"- torch {version('torch')}, {made['threads']} threads, {made['precision']} in training and sampling",
    ]


def table(rows: list[Row], file: int) -> list[str]:
    """The rows; memory of the first three, those of `reading`, as a share of the `file`'s bytes; what failed."""
    lines = ["| what | command | seconds | peak GiB |\n|---|---|---:|---:|"]
    for row in rows:
        seconds = "failed" if row.seconds is None else f"{row.seconds:.2f}"
        lines.append(f"| {row.what} | {row.command} | {seconds} | {row.peak:.2f} |")
    if not rows[0].failure:
        base, loaded, touched = (row.peak * GIB / file for row in rows[:3])
        lines.append(
            f"\nPeak over size of the file: {loaded:.2f} after loading, {touched:.2f} with every weight read; "
            f"less that of the imports, {loaded - base:.2f} and {touched - base:.2f}."
        )
    return lines + [f"\n{row.command} failed: {row.failure}" for row in rows if row.failure]


def report(size: Size, made: dict, rows: list[Row], file: int, load: float) -> str:
    """The page: machine, models and table."""
    lines = [
        f"# Full size\n\n`python docs/full_size.py{' --tiny' * (size is TINY)}` on {date.today()}:\n",
        *machine(made, load),
        f"- {size.model} at {size.side} pixels, random weights: {made['tensors']} tensors, {made['values']:,} "
        f"values, {file / GIB:.2f} GiB, read soon after they were written\n",
    ]
    return "\n".join(lines + table(rows, file)) + "\n"


def room(work: Path, disk: float) -> float:
    """The load average; ValueError where the folder's disk has less than `disk` GiB left."""
    free = shutil.disk_usage(work).free / GIB
    if free < disk:
        raise ValueError(f"{work}: expected {disk} GiB of free disk, found {free:.1f}; choose it by --work")
    return os.getloadavg()[0]


def made_by(work: Path, command: str) -> dict:
    """What the part `make` printed; ValueError if it failed."""
    row = run("make", work, command)
    if row.failure:
        raise ValueError(f"{row.command} failed: {row.failure}")
    return json.loads(row.printed)


def step_ends(log: Path) -> list[float]:
    """Seconds at the end of each step, by a run's log.jsonl; counted from before the first grid."""
    return [line["seconds"] for line in map(json.loads, log.read_text().splitlines()) if "seconds" in line]


def measure(work: Path, size: Size) -> str:
    """Everything, in the folder `work` -> the page. ValueError if its disk is too full or the files cannot be made."""
    load, part = room(work, size.disk), f"docs/full_size.py {{}}{' --tiny' * (size is TINY)} --work WORK".format
    made = made_by(work, part("make"))
    rows = reading(run("import torch, weights", work, part("read")))
    rows += [run(f"train.py, steps: {n}, a grid before and after", work, TRAIN.format(size.file, n)) for n in (1, 3)]
    at = [] if rows[-1].failure else step_ends(work / "run3" / "log.jsonl")
    step = (at[2] - at[0]) / 2 if at else None
    rows.append(Row("one training step, of these", "by log.jsonl, from the end of the first", step, rows[-1].peak))
    rows.append(run("sample.py, one image in 2 guided steps", work, SAMPLE))
    rows.append(guided(run("one guided DDIM step", work, part("draw"))))
    return report(size, made, rows, (work / size.file).stat().st_size, load)


def main(argv=None, parts: dict = PARTS, sizes=(FULL, TINY), whole: Callable = measure, page: str = "full_size.md"):
    """The command line of both benchmarks: `whole` measures one of the two sizes in a folder and returns the page."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("part", nargs="?", choices=parts, help="one child of the benchmark, right in the folder --work")
    parser.add_argument("--work", type=Path, help="where a temporary folder for all files is made")
    parser.add_argument("--out", type=Path, help=f"page to write; without: docs/{page}, none with --tiny")
    parser.add_argument("--tiny", action="store_true", help="small models: does the benchmark itself work?")
    options = parser.parse_args(argv)
    size = sizes[options.tiny]
    if options.work:
        options.work.mkdir(parents=True, exist_ok=True)
    if options.part:
        return print(json.dumps(parts[options.part](options.work, size)))
    with tempfile.TemporaryDirectory(prefix="full_size_", dir=options.work) as work:
        found = whole(Path(work).resolve(), size)
    print(found)
    if options.out or not options.tiny:
        (options.out or ROOT / "docs" / page).write_text(found)


if __name__ == "__main__":
    try:
        main()
    except (ValueError, OSError) as error:
        sys.exit(f"error: {error}")

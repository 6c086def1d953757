"""Do the same commands work at full size? `python docs/full_size.py` tries them here and writes docs/full_size.md.

A DiT-XL/2 at 256 pixels and Stable Diffusion's autoencoder, random weights in the layouts of the published files, are
read, trained for a few steps and sampled from, on the processor of a Linux or macOS machine. Each command is a process
of its own; its peak is the resident memory that the system counted, mapped pages of the checkpoint included.
"""
import argparse
import json
import os
import re
import resource
import shutil
import subprocess
import sys
import tempfile
import time
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
    model: str   # one of dit.SIZES
    side: int    # of an image, in pixels
    vae: dict    # fields of VAEConfig that are not Stable Diffusion's
    disk: float  # GiB that must be free
    file: str    # in which the DiT is


FULL = Size("DiT-XL/2", 256, {}, 4, "DiT-XL-2-256x256.pt")
TINY = Size("DiT-T/2", 64, {"channels": (8, 8, 8, 8), "layers": 1, "groups": 4}, 0.1, "DiT-T-2-64x64.pt")
TRAIN = ("train.py --model WORK/{0} --vae WORK/vae --data WORK/images --adapter lora:rank=8 --batch 1 --flips none "
         "--rotations 0 --count 1 --sample-steps 2 --measure 0 --cache= --device cpu --steps {1} --out WORK/run{1}")
SAMPLE = "sample.py --run WORK/run3 --steps 2 --guidance 4 --count 1 --classes one --device cpu --out WORK/drawn"


class Row(NamedTuple):
    what: str
    command: str
    seconds: float | None  # None: it failed
    peak: float            # GiB
    failure: str = ""      # why, where the row's own command failed
    printed: str = ""


def make(work: Path, size: Size) -> dict:
    """Weights N(0, 0.02), those that start at zero too, and images of two classes; returns what it was done with."""
    import torch

    import launch
    from data.generated import image
    from data.grid import save_image
    from dit import DiT
    from unet import VAE, VAEConfig
    from weights.convert import export

    torch.manual_seed(0)
    model = DiT.from_name(size.model, image_size=size.side)
    for parameter in (p for p in model.parameters() if p.requires_grad):   # the table of positions stays
        torch.nn.init.normal_(parameter, std=0.02)
    torch.save(model.state_dict(), work / size.file)
    export(VAE(VAEConfig(**size.vae)), work / "vae", "vae-diffusers")
    for i, (name, look) in enumerate([("one", "good"), ("two", "crack")] * 2):
        save_image(work / "images" / name / f"{i}.png", image("hazelnut", look, "few", i, size=size.side)[0])
    values = [tensor.numel() for tensor in model.state_dict().values()]
    return {"tensors": len(values), "values": sum(values), "threads": torch.get_num_threads(),
            "precision": "bfloat16 autocast" if launch.bf16("auto", torch.device("cpu")) else "float32"}


def read(work: Path, size: Size) -> list:
    """(seconds, peak so far) of the imports, of weights.load, and of the same with every weight read once."""
    def stage(began):
        return time.perf_counter() - began, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * MAXRSS

    began = time.perf_counter()
    import weights
    imported, began = stage(began), time.perf_counter()
    model = weights.load(work / size.file)
    loaded = stage(began)
    for parameter in model.parameters():
        parameter.detach().sum()
    return [imported, loaded, stage(began)]


def draw(work: Path, size: Size) -> float:
    """Seconds of one guided DDIM step for one image: half of what 4 steps take longer than 2."""
    import torch

    import launch
    import sampling
    import weights

    model = weights.load(work / size.file, expect="dit", dtype=torch.float32)
    shape, seconds = model.latent_shape, {}
    with torch.autocast("cpu", torch.bfloat16, enabled=launch.bf16("auto", torch.device("cpu"))):
        for steps in (2, 2, 4):   # the first call reads the weights and does not count
            began = time.perf_counter()
            sampling.draw(model, shape, torch.tensor([0]), model.null, sampling.Schedule.linear(), "ddim", steps, 4.0)
            seconds[steps] = time.perf_counter() - began
    return (seconds[4] - seconds[2]) / 2


PARTS = {"make": make, "read": read, "draw": draw}


def run(what: str, work: Path, command: str) -> Row:
    """One row: python with this command, WORK in it replaced, from the repository's root, until it ends."""
    arguments, began = (word.replace("WORK", str(work)) for word in command.split()), time.perf_counter()
    with open(work / "stdout.txt", "w") as out, open(work / "stderr.txt", "w") as err:
        process = subprocess.Popen([sys.executable, *arguments], cwd=ROOT, stdout=out, stderr=err)
        _, status, usage = os.wait4(process.pid, 0)   # unlike `wait`, it tells the memory of this one child
    seconds, failure, process.returncode = time.perf_counter() - began, "", os.waitstatus_to_exitcode(status)
    if process.returncode:   # a negative one is the signal that ended it, -9 where memory ran out
        said = (work / "stderr.txt").read_text().strip().replace(str(work), "WORK")
        print(said, file=sys.stderr)
        failure = f"exit status {process.returncode}, {said.splitlines()[-1] if said else 'nothing said'}"
    return Row(what, f"`python {command}`", None if failure else seconds, usage.ru_maxrss * MAXRSS, failure,
               (work / "stdout.txt").read_text())


def reading(row: Row) -> list[Row]:
    """The three rows of `read`, where the memory of each includes that of the ones before."""
    imported, loaded, touched = [(None, row.peak)] * 3 if row.failure else json.loads(row.printed)
    return [row._replace(seconds=imported[0], peak=imported[1]),
            Row("weights.load", "the same process, from there on", *loaded),
            Row("weights.load, every weight read once", "the same", *touched)]


def report(size: Size, made: dict, rows: list[Row], file: int, load: float) -> str:
    """The page: machine, table, memory as a share of the `file`'s bytes, one sentence for each failure."""
    cpuinfo, memory = Path("/proc/cpuinfo"), os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / GIB
    name = re.search(r"model name\s*: (.*)", cpuinfo.read_text()) if cpuinfo.exists() else None
    lines = [f"# Full size\n\n`python docs/full_size.py{' --tiny' * (size is TINY)}` on {date.today()}:\n",
             f"- {name[1] if name else os.uname().machine}, {os.cpu_count()} cores, "
             f"{memory:.1f} GiB of memory, load average {load:.1f} before the start",
             f"- torch {version('torch')}, {made['threads']} threads, {made['precision']} in training and sampling",
             f"- {size.model} at {size.side} pixels, random weights: {made['tensors']} tensors, {made['values']:,} "
             f"values, {file / GIB:.2f} GiB, read soon after they were written\n",
             "| what | command | seconds | peak GiB |\n|---|---|---:|---:|"]
    for row in rows:
        seconds = "failed" if row.seconds is None else f"{row.seconds:.2f}"
        lines.append(f"| {row.what} | {row.command} | {seconds} | {row.peak:.2f} |")
    if not rows[0].failure:
        base, loaded, touched = (row.peak * GIB / file for row in rows[:3])
        lines.append(f"\nPeak over size of the file: {loaded:.2f} after loading, {touched:.2f} with every weight read; "
                     f"less that of the imports, {loaded - base:.2f} and {touched - base:.2f}.")
    return "\n".join(lines + [f"\n{row.command} failed: {row.failure}" for row in rows if row.failure]) + "\n"


def measure(work: Path, size: Size) -> str:
    """Everything, in the folder `work` -> the page. ValueError if its disk is too full or the files cannot be made."""
    free, load = shutil.disk_usage(work).free / GIB, os.getloadavg()[0]
    if free < size.disk:
        raise ValueError(f"{work}: expected {size.disk} GiB of free disk, found {free:.1f}; choose it by --work")
    part = f"docs/full_size.py {{}}{' --tiny' * (size is TINY)} --work WORK".format
    made = run("make", work, part("make"))
    if made.failure:
        raise ValueError(f"{made.command} failed: {made.failure}")
    rows = reading(run("import torch, weights", work, part("read")))
    rows += [run(f"train.py, steps: {n}, a grid before and after", work, TRAIN.format(size.file, n)) for n in (1, 3)]
    lines = [] if rows[-1].failure else map(json.loads, (work / "run3" / "log.jsonl").read_text().splitlines())
    at = [line["seconds"] for line in lines if "seconds" in line]   # counted from before the first grid
    step = (at[2] - at[0]) / 2 if at else None
    rows.append(Row("one training step, of these", "by log.jsonl, from the end of the first", step, rows[-1].peak))
    rows.append(run("sample.py, one image in 2 guided steps", work, SAMPLE))
    drawn = run("one guided DDIM step", work, part("draw"))
    rows.append(drawn if drawn.failure else drawn._replace(seconds=json.loads(drawn.printed)))
    return report(size, json.loads(made.printed), rows, (work / size.file).stat().st_size, load)


def main(argv=None):
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("part", nargs="?", choices=PARTS, help="one child of the benchmark, right in the folder --work")
    parser.add_argument("--work", type=Path, help="where a temporary folder for all files is made")
    parser.add_argument("--out", type=Path, help="page to write; without: docs/full_size.md, none with --tiny")
    parser.add_argument("--tiny", action="store_true", help="small models: does the benchmark itself work?")
    options = parser.parse_args(argv)
    size = TINY if options.tiny else FULL
    if options.part:
        return print(json.dumps(PARTS[options.part](options.work, size)))
    with tempfile.TemporaryDirectory(prefix="full_size_", dir=options.work) as work:
        page = measure(Path(work).resolve(), size)
    print(page)
    if options.out or not options.tiny:
        (options.out or ROOT / "docs" / "full_size.md").write_text(page)


if __name__ == "__main__":
    try:
        main()
    except (ValueError, OSError) as error:
        sys.exit(f"error: {error}")

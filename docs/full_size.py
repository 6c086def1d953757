"""Do the same commands work at full size? `python docs/full_size.py` tries them here and writes docs/full_size.md.

A DiT-XL/2 at 256 pixels and a Stable Diffusion autoencoder, with random weights in the layouts of the published files,
are read, fine-tuned for a few steps and sampled from, on the processor. Each command is a process of its own; its peak
is the resident memory that the system counted for it, pages mapped from the checkpoint included. Needs Linux or macOS.
"""
import argparse
import json
import os
import platform
import re
import resource
import shlex
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from contextlib import nullcontext
from datetime import date
from importlib.metadata import version
from pathlib import Path
from typing import NamedTuple

# torch and the package are imported by the parts alone: a child's count begins with the memory of its parent
ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))
GIB = 2**30


class Size(NamedTuple):
    model: str                 # one of dit.SIZES
    side: int                  # of an image, in pixels
    channels: tuple[int, ...]  # of the autoencoder's levels
    layers: int                # residual blocks of a level
    groups: int                # of every GroupNorm
    disk: float                # GiB that must be free

    def checkpoint(self, work: Path) -> Path:
        return work / f"{self.model.replace('/', '-')}-{self.side}x{self.side}.pt"


FULL = Size("DiT-XL/2", 256, (128, 256, 512, 512), 2, 32, disk=4)
TINY = Size("DiT-T/2", 64, (8, 8, 8, 8), 1, 4, disk=0.1)


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

    generator, model = torch.Generator().manual_seed(0), DiT.from_name(size.model, image_size=size.side)
    for parameter in (p for p in model.parameters() if p.requires_grad):   # the table of positions stays
        torch.nn.init.normal_(parameter, std=0.02, generator=generator)
    state = model.state_dict()
    torch.save(state, size.checkpoint(work))
    torch.manual_seed(0)
    export(VAE(VAEConfig(channels=size.channels, layers=size.layers, groups=size.groups)), work / "vae", "vae-diffusers")
    for name, look in (("one", "good"), ("two", "crack")):
        for index in range(2):
            save_image(work / "images" / name / f"{index}.png", image("hazelnut", look, "few", index, size=size.side)[0])
    bf16 = launch.bf16("auto", torch.device("cpu"))
    return {"tensors": len(state), "values": sum(tensor.numel() for tensor in state.values()),
            "threads": torch.get_num_threads(), "precision": "bfloat16 (autocast)" if bf16 else "float32"}


def read(work: Path, size: Size) -> dict:
    """stage -> (seconds, peak so far): the imports, weights.load, and the same with every weight read once."""
    began = time.perf_counter()
    import weights
    stages = {"import": (time.perf_counter() - began, own_peak())}
    began = time.perf_counter()
    model = weights.load(size.checkpoint(work))
    stages["load"] = (time.perf_counter() - began, own_peak())
    for parameter in model.parameters():
        parameter.detach().sum()
    return stages | {"touch": (time.perf_counter() - began, own_peak())}


def draw(work: Path, size: Size) -> float:
    """Seconds of a guided DDIM step, one image: half of what 4 steps take longer than 2, once all weights are read."""
    import torch

    import launch
    import sampling
    import weights

    model = weights.load(size.checkpoint(work), expect="dit", dtype=torch.float32)
    shape, seconds = (model.config.in_channels, *[model.config.input_size] * 2), {}
    with torch.autocast("cpu", torch.bfloat16, enabled=launch.bf16("auto", torch.device("cpu"))):
        for steps in (1, 2, 4):
            began = time.perf_counter()
            sampling.draw(model, shape, torch.tensor([0]), model.null, sampling.Schedule.linear(), "ddim", steps, 4.0)
            seconds[steps] = time.perf_counter() - began
    return (seconds[4] - seconds[2]) / 2


PARTS = {"make": make, "read": read, "draw": draw}


def in_gib(maxrss: int) -> float:
    return maxrss * (1 if sys.platform == "darwin" else 1024) / GIB


def own_peak() -> float:
    return in_gib(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)


def run(what: str, work: Path, *arguments: str) -> Row:
    """One row: python with these arguments, from the repository's root, until it ends."""
    began = time.perf_counter()
    with open(work / "stdout.txt", "w+") as out, open(work / "stderr.txt", "w+") as err:
        process = subprocess.Popen([sys.executable, *arguments], cwd=ROOT, stdout=out, stderr=err)
        _, status, usage = os.wait4(process.pid, 0)   # unlike `wait`, it tells the memory of this one child
        seconds, code = time.perf_counter() - began, os.waitstatus_to_exitcode(status)
        process.returncode = code
    printed, errors = (Path(file.name).read_text().strip() for file in (out, err))
    reason = f"ended by {signal.Signals(-code).name}" if code < 0 else re.split(r"[\r\n]+", errors)[-1]
    command = shlex.join(["python", *arguments]).replace(f"{work}/", "WORK/").replace(str(work), "WORK")
    return Row(what, command, None if code else seconds, in_gib(usage.ru_maxrss), reason if code else "", printed)


def part(name: str, what: str, work: Path, size: Size) -> Row:
    tiny = ["--tiny"] if size is TINY else []
    return run(what, work, "docs/full_size.py", name, "--work", str(work), *tiny)


def reading(work: Path, size: Size) -> list[Row]:
    row = part("read", "import torch, weights", work, size)
    stages = json.loads(row.printed) if not row.failure else dict.fromkeys(("import", "load", "touch"), (None, row.peak))
    seconds = {name: stage[0] for name, stage in stages.items()}
    return [row._replace(seconds=seconds["import"], peak=stages["import"][1]),
            Row("weights.load", "the same process, from here on", seconds["load"], stages["load"][1]),
            Row("weights.load, every weight read once", "the same", seconds["touch"], stages["touch"][1])]


def training(work: Path, size: Size) -> list[Row]:
    """Runs of 1 and 3 steps, and one step by the log of the latter, whose clock runs through the grid of step 0 too."""
    flags = ["--model", str(size.checkpoint(work)), "--vae", str(work / "vae"), "--data", str(work / "images"),
             "--adapter", "lora:rank=8", "--batch", "1", "--flips", "none", "--rotations", "0", "--count", "1",
             "--sample-steps", "2", "--measure", "0", "--cache", "", "--device", "cpu"]
    rows = [run(f"train.py, {steps} step{'s' * (steps > 1)} between two grids", work, "train.py", *flags,
                "--steps", str(steps), "--out", str(work / f"run{steps}")) for steps in (1, 3)]
    seconds = None
    if not rows[1].failure:
        lines = [json.loads(line) for line in (work / "run3" / "log.jsonl").read_text().splitlines()]
        first, _, last = (line["seconds"] for line in lines if "loss" in line)
        seconds = (last - first) / 2
    return rows + [Row("one training step, batch 1", "by the log of these 3 steps", seconds, rows[1].peak)]


def drawing(work: Path, size: Size) -> list[Row]:
    whole = run("sample.py, one image in 2 guided steps", work, "sample.py", "--run", str(work / "run3"), "--steps", "2",
                "--guidance", "4", "--count", "1", "--classes", "one", "--device", "cpu", "--out", str(work / "drawn"))
    row = part("draw", "one guided DDIM step, without autoencoder", work, size)
    return [whole, row if row.failure else row._replace(seconds=json.loads(row.printed))]


def report(size: Size, made: dict, rows: list[Row], file: int, load: float) -> str:
    """The page: machine, table, what the file's size was, and one sentence for each failure."""
    cpuinfo = Path("/proc/cpuinfo")
    name = re.search(r"model name\s*: (.*)", cpuinfo.read_text()) if cpuinfo.exists() else None
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / GIB
    lines = ["# Full size", "", f"Written by `python docs/full_size.py{' --tiny' * (size is TINY)}`, {date.today()}.", "",
             f"- machine: {name[1] if name else platform.processor() or platform.machine()}, {os.cpu_count()} cores, "
             f"{memory:.1f} GiB memory, load average {load:.1f} before the start",
             f"- torch {version('torch')}, {made['threads']} threads, {made['precision']} in training and sampling",
             f"- {size.model} at {size.side} pixels, random: {made['tensors']} tensors, {made['values']:,} values, "
             f"{file / GIB:.2f} GiB, just written, so that reading may come from memory and not from the disk", "",
             "| what | command | seconds | peak GiB |", "|---|---|---:|---:|"]
    for row in rows:
        command = f"`{row.command}`" if row.command.startswith("python ") else row.command
        seconds = "failed" if row.seconds is None else f"{row.seconds:.2f}"
        lines.append(f"| {row.what} | {command} | {seconds} | {row.peak:.2f} |")
    if not rows[0].failure:
        base, loaded, touched = (row.peak * GIB for row in rows[:3])
        lines += ["", f"Peak over the file's size: {loaded / file:.2f} after loading, {touched / file:.2f} after reading "
                  f"every weight; less the imports {(loaded - base) / file:.2f} and {(touched - base) / file:.2f}."]
    failed = [f"`{row.command}` failed: {row.failure}." for row in rows if row.failure]
    return "\n".join(lines + [line for text in failed for line in ("", text)]) + "\n"


def measure(work: Path, size: Size) -> str:
    """Everything in the empty folder `work` -> the page. ValueError if the disk is too full or making the files fails."""
    free, load = shutil.disk_usage(work).free, os.getloadavg()[0]
    if free < size.disk * GIB:
        raise ValueError(f"{work}: expected {size.disk} GiB free, found {free / GIB:.1f}; give another --work")
    made = part("make", "make", work, size)
    if made.failure:
        raise ValueError(f"`{made.command}` failed: {made.failure}")
    rows = reading(work, size) + training(work, size) + drawing(work, size)
    return report(size, json.loads(made.printed), rows, size.checkpoint(work).stat().st_size, load)


def main(argv=None):
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("part", nargs="?", choices=PARTS, help="one child of the benchmark, in a folder already made")
    parser.add_argument("--work", type=Path, help="folder for the files, empty or new, kept; none: a temporary one")
    parser.add_argument("--out", type=Path, help="page to write; none: docs/full_size.md, with --tiny only printed")
    parser.add_argument("--tiny", action="store_true", help="small models: whether the benchmark itself works")
    options = parser.parse_args(argv)
    size = TINY if options.tiny else FULL
    if options.part:
        print(json.dumps(PARTS[options.part](options.work, size)))
        return
    if options.work and options.work.exists() and any(options.work.iterdir()):
        raise ValueError(f"{options.work}: expected an empty or new folder, found {len(list(options.work.iterdir()))} files")
    if options.work:
        options.work.mkdir(parents=True, exist_ok=True)
    with nullcontext(options.work) if options.work else tempfile.TemporaryDirectory() as work:
        page = measure(Path(work).resolve(), size)
    out = options.out or (None if options.tiny else ROOT / "docs" / "full_size.md")
    if out:
        out.write_text(page)
    print(page, end="")


if __name__ == "__main__":
    try:
        main()
    except (ValueError, OSError) as error:
        sys.exit(f"error: {error}")

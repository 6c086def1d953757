"""The rows of whole commands: train.py and sample.py on files of full size, from the shell to the last file written.

The files are made before and by another process (files.py): this one stays small, see timing/child.py. The peak is
resident memory, on a GPU too.
"""

import json
import shlex
import tempfile
from collections.abc import Callable

from bench.timing.child import run

SHORT = "--batch 1 --flips none --rotations 0 --count 1 --sample-steps 2 --cache= --steps 3"
TRAIN_DIT = "train.py --model WORK/dit.pt --vae WORK/vae --data WORK/images --adapter lora:rank=8 --measure 0"
TRAIN_SD = (
    "train.py --recipe text --model WORK/sd --data WORK/images --adapter unet.lora:rank=4 "
    '--template "a photo of a {class}"'
)
SAMPLE = "sample.py --run WORK/run --steps 2 --guidance 4 --count 1"


def train_dit(size: dict, device: str) -> Callable:
    """LoRA on a DiT, 3 steps, a grid before and after them."""
    return command("dit", size, device, [], f"{TRAIN_DIT} {SHORT}")


def sample_dit(size: dict, device: str) -> Callable:
    """One image of such a run in 2 guided steps."""
    return command("dit", size, device, [f"{TRAIN_DIT} {SHORT}"], f"{SAMPLE} --classes good")


def train_sd(size: dict, device: str) -> Callable:
    """LoRA on a Stable Diffusion, 3 steps, a grid before and after them; a diffusers folder in float16."""
    return command("sd", size, device, [], f"{TRAIN_SD} {SHORT}")


def sample_sd(size: dict, device: str) -> Callable:
    """One image of such a run in 2 guided steps."""
    return command("sd", size, device, [f"{TRAIN_SD} {SHORT}"], f'{SAMPLE} --prompt "a photo of a hazelnut"')


def command(files: str, size: dict, device: str, before: list[str], line: str) -> Callable:
    """The command of this line as a step, WORK in it a folder with these files, in which others ran before."""
    work = tempfile.TemporaryDirectory(prefix="bench_")
    run(["-m", "bench.sides.files", files, work.name, json.dumps(size)])

    def words(line: str) -> list[str]:
        return [*(word.replace("WORK", work.name) for word in shlex.split(line)), "--device", device]

    for each in before:
        run([*words(each), "--out", f"{work.name}/run"])

    def step() -> dict:
        with tempfile.TemporaryDirectory(dir=work.name) as out:
            return run([*words(line), "--out", f"{out}/out"])

    return step

"""The rows of the bench: what is done, by whom, and what is asked of the ratio ours / the other's.

A side is "file:function" of sides/, called as function(size, device) in a process of its own; what it returns is one
step, which is timed. A side that begins with "-" is the arguments of a Python process, timed as a whole. A row without
another side tells what ours takes.
"""

from typing import NamedTuple

DIFFUSERS = "diffusers"
FILE = ("the file's bytes", None, 1.05)
PLAIN = "not compiled"
SMALL = {"model": "DiT-S/2", "depth": 12, "heads": 6, "head_width": 64}  # and SiT-S/2
COLD = {"warm": False}  # a command is timed from its first run on


class Row(NamedTuple):
    """One row: two sides, and the most that is asked of ours / other (the least, where it is negative)."""

    what: str
    ours: str
    other: str = ""
    named: str = ""  # whom the other side is
    time: float | None = None  # asked of the ratio of times
    memory: float | None = None  # asked of the ratio of peaks
    gib: float = 4.0  # that both sides may hold together; with less free memory they run one after the other
    option: dict = {}  # of both sides


ROWS = {
    "dit_fp32": Row("DiT forward B2, fp32", "ours:dit", "peers:dit", DIFFUSERS, 1.0, gib=8, option={"bf16": False}),
    "dit_bf16": Row("DiT forward B2, bf16", "ours:dit", "peers:dit", DIFFUSERS, 0.80, option={"bf16": True}),
    "dit_original": Row(
        "DiT forward B2, bf16", "ours:dit", "plain:original", "the original's arithmetic", option={"bf16": True}
    ),
    "ddim": Row("guided DDIM, B1, with decoding, bf16", "ours:ddim", "peers:ddim", DIFFUSERS, 0.80, gib=6),
    "bitfit": Row("BitFit step B4, bf16", "ours:bitfit", "peers:bitfit", DIFFUSERS, 0.90, 0.60, 8),
    "bitfit_small": Row(
        "BitFit step B4, bf16, of a DiT-S/2 or SiT-S/2", "ours:bitfit", "peers:bitfit", DIFFUSERS, option=SMALL
    ),
    "bitfit_twice": Row(
        "BitFit step B4, bf16, --checkpoint blocks", "ours:bitfit_twice", "peers:bitfit", DIFFUSERS, None, 0.60, 8
    ),
    "lora": Row("LoRA r8 step B4, bf16", "ours:lora", "peers:lora", "diffusers, peft", 0.90, 0.60, 8),
    "full": Row("full step B1, bf16, float32 weights", "ours:full", "peers:full", DIFFUSERS, 0.90, 0.70, 22),
    "full_bitfit": Row("full step / BitFit step, B4, bf16", "ours:full_b4", "ours:bitfit", "ours", -1.7, gib=17),
    "sd_lora": Row(
        "Stable Diffusion 1.5, LoRA r4 step B1, the other encodes image and text in each, bf16",
        "ours:sd_lora",
        "peers:sd_lora",
        "diffusers, peft",
        0.60,
        0.70,
        10,
    ),
    "sd_full": Row(
        "SD 1.5, full step of the UNet B1, bf16, float32 weights", "ours:sd_full", "peers:sd_full", DIFFUSERS, gib=36
    ),
    "unet": Row("SD 1.5 UNet forward B2, bf16", "ours:unet", "peers:unet", DIFFUSERS, 0.95, gib=6),
    "xl_guided": Row("SDXL, guided DDIM step B1, bf16", "xl:guided", "peers:xl_guided", DIFFUSERS, gib=18),
    "xl_lora": Row("SDXL, LoRA r8 step B1, bf16", "xl:lora", "peers:xl_lora", "diffusers, peft", gib=22),
    "compiled_dit": Row("DiT forward B2, bf16, compiled", "compiled:dit", "ours:dit", PLAIN, option={"bf16": True}),
    "compiled_bitfit": Row("BitFit step B4, bf16, compiled", "compiled:bitfit", "ours:bitfit", PLAIN, gib=8),
    "compiled_tiny": Row(
        "step of train.py's own model B32, bf16, compiled", "compiled:tiny", "compiled:plain_tiny", PLAIN
    ),
    "compiled_first": Row("DiT forward B2, bf16, the first one compiled", "compiled:first", option=COLD),
    "vae_decode": Row("VAE decode B1, bf16", "ours:vae_decode", "peers:vae_decode", DIFFUSERS, 0.80),
    "sampler": Row("50 DDIM steps without a model", "ours:sampler", "peers:sampler", DIFFUSERS, 0.40),
    "import_train": Row("import of train.py", "-c 'import train'", "-c 'import torch'", "torch alone", 1.2),
    "import_sample": Row("import of sample.py", "-c 'import sample'", "-c 'import torch'", "torch alone", 1.2),
    "import_evaluate": Row("import of evaluate.py", "-c 'import evaluate'", "-c 'import torch'", "torch alone", 1.2),
    "read": Row("read a whole checkpoint of DiT", "ours:read", "plain:read", *FILE, 6),
    "read_sd": Row("read a whole Stable Diffusion 1.5", "ours:read_sd", "plain:read_sd", *FILE, 9),
    "train_dit": Row("train.py on DiT-XL/2 at 256 pixels, LoRA r8, 3 steps B1", "commands:train_dit", option=COLD),
    "sample_dit": Row("sample.py of it, one image in 2 guided steps", "commands:sample_dit", option=COLD),
    "train_sd": Row("train.py on SD 1.5, LoRA r4, 3 steps B1", "commands:train_sd", option=COLD),
    "sample_sd": Row("sample.py of it, one image in 2 guided steps", "commands:sample_sd", option=COLD),
    "main": Row(
        "train.py without arguments, per step", "tree:here", "tree:there", "--against COMMIT", 1 / 1.3, option=COLD
    ),
}
"""The order is that of the table."""

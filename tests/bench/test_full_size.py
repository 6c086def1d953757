"""The full-size benchmarks on small models: every row is measured, failures are told, "full" is the published size."""

import os
import re
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from bench import child, full_size_dit, full_size_sd
from dit import DiT
from unet import VAE, TextEncoder, UNet, VAEConfig
from unet.sizes import TEXT_ENCODERS as TOWERS
from unet.sizes import UNETS

ROOT = Path(__file__).parent.parent.parent
ROWS = {
    "full_size_dit": [
        "import torch, weights",
        "weights.load",
        "weights.load, every weight read once",
        "train.py, steps: 1, a grid before and after",
        "train.py, steps: 3, a grid before and after",
        "one training step, of these",
        "sample.py, one image in 2 guided steps",
        "one guided DDIM step",
    ],
    "full_size_sd": [
        "import torch, weights",
        "weights.load_sd, the single file",
        "weights.load_sd, the single file, every weight read once",
        "train.py, LoRA, steps: 2, a grid before and after",
        "one LoRA step, of these",
        "sample.py, one image in 2 guided steps",
        "one guided DDIM step",
        "DreamBooth, up to the first step",
        "DreamBooth, the first step",
        "DreamBooth, the second step",
    ],
}
MADE = {
    "full_size_dit": "92 tensors, 5,696,672 values",
    "full_size_sd": "420 tensors, 271,867 values",
}  # the small models
ONE = {"tensors": 1, "values": 1, "threads": 1, "precision": "float32"}


@pytest.mark.parametrize("script", ROWS)
def test_the_page_has_every_row(script, tmp_path):
    page, work = tmp_path / "page.md", tmp_path / "a" / "work"  # which is not there yet
    command = [sys.executable, "-m", f"bench.{script}", "--tiny", "--work", str(work), "--out", str(page)]
    done = subprocess.run(command, capture_output=True, text=True, env=os.environ | {"OMP_NUM_THREADS": "1"}, cwd=ROOT)
    assert done.returncode == 0, done.stderr
    text = page.read_text()
    rows = re.findall(r"^\| (.+?) \| (.+?) \| (-?[\d.]+) \| ([\d.]+) \|$", text, re.M)
    assert [row[0] for row in rows] == ROWS[script] and "failed" not in text and str(tmp_path) not in text
    assert all(float(peak) > 0 for *_, peak in rows) and MADE[script] in text
    assert list(work.iterdir()) == []  # the files of the run are gone


def test_full_size_is_that_of_the_published_files():
    dit, sd = full_size_dit.FULL, full_size_sd.FULL
    with torch.device("meta"):
        models = [
            DiT.from_name(dit.model, image_size=dit.side),
            VAE(VAEConfig(**dit.vae)),
            UNet(replace(UNETS["SD-1"], **sd.unet)),
            TextEncoder(replace(TOWERS["CLIP-L"], **sd.text)),
            VAE(VAEConfig(**sd.vae)),
        ]
    counts = [sum(parameter.numel() for parameter in model.parameters()) for model in models]
    assert counts == [675_129_632, 83_653_863, 859_520_964, 123_060_480, 83_653_863]
    assert len(models[0].state_dict()) == 292


@pytest.mark.parametrize(
    "code, words",
    [
        ("import sys; sys.exit('error: no model in WORK')", "exit status 1, error: no model in WORK"),
        ("raise SystemExit(3)", "exit status 3, nothing printed"),
        ("import os, signal; os.kill(os.getpid(), signal.SIGKILL)", "exit status -9, nothing printed"),
    ],
)
def test_a_command_that_fails_is_a_row_for_each_stage_and_a_sentence(tmp_path, code, words):
    (tmp_path / "code.py").write_text(code.replace("WORK", str(tmp_path)))
    row = child.run("a step", tmp_path, "WORK/code.py")
    assert row.failure == words and row.seconds is None and row.peak > 0
    page = full_size_dit.report(full_size_dit.TINY, ONE, child.reading(row), file=4, load=0.0)
    assert page.count("| failed |") == 3 and page.endswith(f"\n`python WORK/code.py` failed: {words}\n")
    page = full_size_sd.report(full_size_sd.TINY, ONE, child.staged(row, "before", "first", "second"), 4, 0.0)
    assert page.count("| failed |") == 3 and f"`python WORK/code.py` failed: {words}" in page


def test_what_cannot_be_measured_is_one_sentence(tmp_path):
    with pytest.raises(ValueError, match="expected 1000000000 GiB of free disk"):
        full_size_dit.measure(tmp_path, full_size_dit.TINY._replace(disk=10**9))
    (tmp_path / "vae").write_text("a file where a folder shall be")
    with pytest.raises(ValueError, match="make --tiny --work WORK` failed: exit status 1, error: .*WORK/vae"):
        full_size_dit.measure(tmp_path, full_size_dit.TINY)

"""docs/full_size_sd.py on a small Stable Diffusion: every row is measured, and "full" is the published size."""
import os
import re
import subprocess
import sys
from dataclasses import replace
from importlib import import_module
from pathlib import Path

import pytest
import torch

from unet import VAE, TextTower, UNet
from unet.model import SIZES as UNETS
from unet.text import SIZES as TOWERS
from unet.vae import SIZES as VAES

SCRIPT = Path(__file__).parent.parent / "docs" / "full_size_sd.py"
ROWS = ["import torch, weights", "weights.load_sd, the single file",
        "weights.load_sd, the single file, every weight read once",
        "train.py, LoRA, steps: 2, a grid before and after", "one LoRA step, of these",
        "sample.py, one image in 2 guided steps", "one guided DDIM step", "DreamBooth, up to the first step",
        "DreamBooth, the first step", "DreamBooth, the second step"]


@pytest.fixture
def full_size_sd(monkeypatch):
    monkeypatch.syspath_prepend(str(SCRIPT.parent))   # as for a script started from there: it imports full_size
    return import_module("full_size_sd")


def count(size):
    """Numbers in the three models of a size, none of which is allocated."""
    with torch.device("meta"):
        models = (UNet(replace(UNETS["SD-1"], **size.unet)), TextTower(replace(TOWERS["CLIP-L"], **size.text)),
                  VAE(replace(VAES["VAE-SD"], **size.vae)))
    return [sum(parameter.numel() for parameter in model.parameters()) for model in models]


def test_the_page_has_every_row(full_size_sd, tmp_path):
    page = tmp_path / "page.md"
    done = subprocess.run([sys.executable, str(SCRIPT), "--tiny", "--work", str(tmp_path), "--out", str(page)],
                          capture_output=True, text=True, env=os.environ | {"OMP_NUM_THREADS": "1"}, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    text = page.read_text()
    rows = re.findall(r"^\| (.+?) \| (.+?) \| (-?[\d.]+) \| ([\d.]+) \|$", text, re.M)
    assert [row[0] for row in rows] == ROWS and "failed" not in text and str(tmp_path) not in text
    assert all(float(peak) > 0 for *_, peak in rows) and f"{sum(count(full_size_sd.TINY)):,} values" in text
    assert [path.name for path in tmp_path.iterdir()] == ["page.md"]   # the files of the run are gone


def test_full_size_is_that_of_the_published_files(full_size_sd):
    assert count(full_size_sd.FULL) == [859_520_964, 123_060_480, 83_653_863]


def test_a_dreambooth_that_runs_out_of_memory_is_three_rows_and_a_sentence(full_size_sd, tmp_path):
    (tmp_path / "code.py").write_text("import os, signal; os.kill(os.getpid(), signal.SIGKILL)")
    rows = full_size_sd.bench.staged(full_size_sd.bench.run("", tmp_path, "WORK/code.py"), "before", "first", "second")
    made = {"tensors": 1, "values": 1, "threads": 1, "precision": "float32"}
    page = full_size_sd.report(full_size_sd.TINY, made, rows, file=4, load=0.0)
    assert page.count("| failed |") == 3 and "`python WORK/code.py` failed: exit status -9, nothing said" in page

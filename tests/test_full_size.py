"""docs/full_size.py on small models: every row is measured, what fails is said, and "full" is the published size."""
import importlib.util
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from dit import DiT
from unet import VAE, VAEConfig

ROOT = Path(__file__).parent.parent
SCRIPT = ROOT / "docs" / "full_size.py"
ROWS = ["import torch, weights", "weights.load", "weights.load, every weight read once",
        "train.py, steps: 1, a grid before and after", "train.py, steps: 3, a grid before and after",
        "one training step, of these", "sample.py, one image in 2 guided steps", "one guided DDIM step"]


@pytest.fixture(scope="module")
def full_size():
    spec = importlib.util.spec_from_file_location("full_size", SCRIPT)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_the_page_has_every_row(tmp_path):
    page = tmp_path / "page.md"
    done = subprocess.run([sys.executable, str(SCRIPT), "--tiny", "--work", str(tmp_path), "--out", str(page)],
                          capture_output=True, text=True, env=os.environ | {"OMP_NUM_THREADS": "1"}, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    text = page.read_text()
    rows = re.findall(r"^\| (.+?) \| (.+?) \| (-?[\d.]+) \| ([\d.]+) \|$", text, re.M)
    assert [row[0] for row in rows] == ROWS and "failed" not in text and str(tmp_path) not in text
    assert all(float(peak) > 0 for *_, peak in rows) and "92 tensors, 5,696,672 values" in text
    assert [path.name for path in tmp_path.iterdir()] == ["page.md"]   # the files of the run are gone


def test_full_size_is_that_of_the_published_files(full_size):
    with torch.device("meta"):
        model = DiT.from_name(full_size.FULL.model, image_size=full_size.FULL.side)
        vae = VAE(VAEConfig(**full_size.FULL.vae))
    state = model.state_dict().values()
    assert (len(state), sum(tensor.numel() for tensor in state)) == (292, 675_129_632)
    assert sum(parameter.numel() for parameter in vae.parameters()) == 83_653_863


@pytest.mark.parametrize("code, words", [
    ("import sys; sys.exit('error: no model in WORK')", "exit status 1, error: no model in WORK"),
    ("raise SystemExit(3)", "exit status 3, nothing said"),
    ("import os, signal; os.kill(os.getpid(), signal.SIGKILL)", "exit status -9, nothing said"),
])
def test_a_command_that_fails_is_a_row_and_a_sentence(full_size, tmp_path, code, words):
    (tmp_path / "code.py").write_text(code.replace("WORK", str(tmp_path)))
    row = full_size.run("a step", tmp_path, "WORK/code.py")
    assert row.failure == words and row.seconds is None and row.peak > 0
    made = {"tensors": 1, "values": 1, "threads": 1, "precision": "float32"}
    page = full_size.report(full_size.TINY, made, full_size.reading(row), file=4, load=0.0)
    assert page.count("| failed |") == 3 and page.endswith(f"\n`python WORK/code.py` failed: {words}\n")


def test_what_cannot_be_measured_is_one_sentence(full_size, tmp_path):
    with pytest.raises(ValueError, match="expected 1000000000 GiB of free disk"):
        full_size.measure(tmp_path, full_size.TINY._replace(disk=10**9))
    (tmp_path / "vae").write_text("a file where a folder shall be")
    with pytest.raises(ValueError, match="make --tiny --work WORK` failed: exit status 1, error: .*WORK/vae"):
        full_size.measure(tmp_path, full_size.TINY)

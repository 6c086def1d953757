"""A new method is one file and its line in adapters/methods, and the contract then covers it: tried by a toy."""

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parent.parent.parent
TOY = '''"""Toy: a trained number for every output of attention, y = (W x + b) exp(a), a = 0 at the start."""

import torch
from torch import nn

from adapters.core import match, specialize
from adapters.methods.low_rank.lora import ATTENTION


class Toy:
    """y = (W x + b) exp(a), a (out,). Merges to exp(a) W, exp(a) b."""

    added = ("toy_log",)

    def setup(self) -> None:
        self.toy_log = nn.Parameter(torch.zeros_like(self.weight[:, 0]))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """x (..., in) -> (..., out)."""
        return super().forward(x) * self.toy_log.exp()

    def merge(self) -> None:
        self.weight.mul_(self.toy_log.exp()[:, None])
        if self.bias is not None:
            self.bias.mul_(self.toy_log.exp())


def toy(model: nn.Module, generator: torch.Generator | None, *, targets: str = ATTENTION) -> None:
    """Toy on every Linear that `targets` finds."""
    for _, layer in match(model, targets, nn.Linear):
        specialize(layer, Toy)
'''


def copy_with(folder, toy):
    """The repository with one more file, and one more name in each of the two places where methods are listed."""
    for name in ("border", "dit", "unet", "ops", "pyproject.toml", "setup.cfg"):
        if (ROOT / name).exists():
            (folder / name).symlink_to(ROOT / name)
    shutil.copytree(ROOT / "adapters", folder / "adapters", ignore=shutil.ignore_patterns("__pycache__"))
    (folder / "tests").mkdir()
    shutil.copy(ROOT / "tests" / "adapters" / "test_contract.py", folder / "tests" / "test_contract.py")
    (folder / "adapters" / "methods" / "toy.py").write_text(toy)
    listed = folder / "adapters" / "methods" / "__init__.py"
    text = listed.read_text().replace("from adapters.methods import bnn,", "from adapters.methods import toy, bnn,")
    listed.write_text(text.replace("METHODS = {\n", 'METHODS = {\n    "toy": toy.toy,\n'))


def contract(folder):
    """pytest on the contract, the cases of toy alone, those with other methods by a few of the pairs."""
    chosen = "toy and not compiles and (not compose or lora or bitfit or norm)"
    return subprocess.run(
        [sys.executable, "-m", "pytest", "-k", chosen, "tests/test_contract.py"],
        cwd=folder,
        capture_output=True,
        text=True,
        env=os.environ | {"OMP_NUM_THREADS": "1"},
    )


def test_a_method_of_one_file_and_one_line_is_held_to_the_contract(tmp_path):
    copy_with(tmp_path, TOY)
    done = contract(tmp_path)
    assert done.returncode == 0, done.stdout
    assert int(re.search(r"(\d+) passed", done.stdout)[1]) > 20 and TOY.count("\n") < 100


def test_a_method_that_breaks_its_promises_is_caught(tmp_path):
    broken = TOY.replace("torch.zeros_like", "torch.ones_like").replace("self.bias.mul_", "self.bias.add_")
    copy_with(tmp_path, broken)
    failed = contract(tmp_path).stdout
    assert "test_output_is_bit_identical_at_step_0[toy-dit]" in failed
    assert "test_merge_keeps_the_output_and_gives_plain_layers_where_defined[toy-sd]" in failed

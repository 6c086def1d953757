"""Who may import whom: the table that keeps the package a few readable parts, held against the code itself."""

import ast
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
PACKAGES = {"ops", "sampling", "adapters", "data", "launch", "dit", "unet", "weights", "metrics", "recipes"}
LOCAL = PACKAGES | {"train", "sample", "evaluate", "compare", "experiments", "evidence", "bench"}
ALLOWED = {  # part: the parts that it may import
    "ops": set(),
    "sampling": set(),
    "adapters": set(),
    "data": set(),
    "launch": set(),
    "dit": {"ops"},
    "unet": {"ops"},
    "metrics": {"ops", "unet", "data", "weights"},
    "weights": {"dit", "unet", "adapters", "data", "sampling"},
    "recipes": PACKAGES - {"recipes"},
    "train": PACKAGES,
    "sample": PACKAGES,
    "evaluate": PACKAGES,
    "experiments": PACKAGES | {"train", "sample"},
    "compare": {"launch", "experiments"},
    "evidence": PACKAGES | {"experiments"},
    "bench": PACKAGES | {"train"},
}
OUTSIDE = {"torch", "numpy", "einops", "safetensors", "PIL", "scipy", "tqdm", "matplotlib", "triton"}


def imported(path):
    """Top-level names of all absolute imports of a file, those inside functions too."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name.split(".")[0] for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.level == 0:
            yield node.module.split(".")[0]


def files(part):
    single = ROOT / f"{part}.py"
    return [single] if single.exists() else sorted((ROOT / part).rglob("*.py"))


@pytest.mark.parametrize("part", sorted(LOCAL))
def test_a_part_imports_only_what_the_table_allows(part):
    assert files(part), f"{part} is in the table and not in the repository"
    for path in files(part):
        local = {name for name in imported(path) if name in LOCAL} - {part}
        assert local <= ALLOWED[part], f"{path.relative_to(ROOT)} imports {sorted(local - ALLOWED[part])}"


def test_no_dependency_beyond_the_stated_ones():
    import sys

    for part in LOCAL:
        for path in files(part):
            foreign = {name for name in imported(path) if name not in LOCAL | set(sys.stdlib_module_names)}
            assert foreign <= OUTSIDE, f"{path.relative_to(ROOT)} imports {sorted(foreign - OUTSIDE)}"


def test_every_top_level_package_is_in_the_table():
    packages = {path.parent.name for path in ROOT.glob("*/__init__.py")} | {path.stem for path in ROOT.glob("*.py")}
    assert packages == LOCAL

"""Who may import whom: the table that keeps the package a few readable parts, held against the code itself."""

import ast
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
PACKAGES = {"ops", "sampling", "adapters", "data", "launch", "dit", "unet", "weights", "training", "metrics", "recipes"}
LOCAL = PACKAGES | {"train", "sample", "evaluate", "compare", "evidence"}
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
    "training": {"weights"},
    "recipes": PACKAGES - {"recipes"},
    "train": PACKAGES,
    "sample": PACKAGES,
    "evaluate": PACKAGES,
    "compare": PACKAGES | {"train", "sample"},
    "evidence": PACKAGES | {"train", "sample", "compare"},
}
WEIGHTS = {  # room of weights/: the rooms that it may import, all of them below it
    "formats": set(),
    "layouts": {"formats"},
    "models": {"formats", "layouts"},
    "adapter_files": {"formats", "layouts", "models"},
    "": {"formats", "layouts", "models", "adapter_files"},  # weights/*.py
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


@pytest.mark.parametrize("room", WEIGHTS)
def test_a_room_of_weights_imports_only_the_rooms_below_it(room):
    folder = ROOT / "weights" / room
    for path in folder.glob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.ImportFrom) and (node.module or "").split(".")[0] == "weights":
                inside = node.module.split(".")[1:]
                rooms = {inside[0]} if inside else {alias.name for alias in node.names}
                assert rooms <= WEIGHTS[room] | {room}, f"{path.relative_to(ROOT)} imports {sorted(rooms)}"
    for function in (n for p in folder.glob("*.py") for n in ast.walk(ast.parse(p.read_text()))):
        if isinstance(function, ast.FunctionDef):
            hidden = [n for n in ast.walk(function) if isinstance(n, ast.Import | ast.ImportFrom)]
            assert not hidden, f"weights/{room}: {function.name} hides an import"


def test_every_room_of_weights_is_in_the_table():
    assert {path.parent.name for path in ROOT.glob("weights/*/__init__.py")} | {""} == WEIGHTS.keys()

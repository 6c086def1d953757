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
    "training": {"weights"},
    "recipes": PACKAGES - {"recipes"},
    "train": PACKAGES,
    "sample": PACKAGES,
    "evaluate": PACKAGES,
    "experiments": PACKAGES | {"train", "sample"},
    "compare": {"config", "experiments"},
    "evidence": PACKAGES | {"experiments"},
    "bench": PACKAGES | {"train"},
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


ROOMS = {  # room, or file that lies in none: the rooms of its package that it may import, all of them above it here
    "data.image_set": set(),
    "data.images": set(),
    "data.transforms": set(),
    "data.generated": set(),
    "data.folders": {"data.image_set", "data.images"},
    "data.source": {"data.image_set", "data.images", "data.transforms", "data.folders", "data.generated"},
    "data": {"data.image_set", "data.source"},
    "data.output": {"data.image_set", "data.images", "data.transforms", "data.folders", "data.source"},
    "data.latents": {"data.transforms", "data.output"},
    "data.__main__": {"data.images", "data.folders"},
    "metrics.statistics": set(),
    "metrics.networks": set(),
    "metrics.downstream": {"metrics.statistics", "metrics.networks"},
    "metrics.table": {"metrics.statistics", "metrics.networks"},
    "metrics.report": set(),
    "metrics": set(),
}


def room_of(module):
    """The room of a dotted name: the longest entry of the table that it begins with; None for another package's."""
    parts = module.split(".")
    return next((room for i in range(len(parts), 0, -1) if (room := ".".join(parts[:i])) in ROOMS), None)


def rooms_imported(path):
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from (room_of(alias.name) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            yield from (room_of(f"{node.module}.{alias.name}") for alias in node.names)


@pytest.mark.parametrize("package", ["data", "metrics"])
def test_a_room_imports_only_rooms_above_it_in_the_table(package):
    names, seen = list(ROOMS), set()
    for room, allowed in ROOMS.items():
        assert allowed <= set(names[: names.index(room)])
    for path in files(package):
        module = ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__")
        room = room_of(module)
        others = {other for other in rooms_imported(path) if other and other.split(".")[0] == package} - {room}
        assert others <= ROOMS[room], f"{path.relative_to(ROOT)} imports {sorted(others - ROOMS[room])}"
        seen.add(room)
    assert seen == {room for room in ROOMS if room.split(".")[0] == package}, "the table names a room that is not there"


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

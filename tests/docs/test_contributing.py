"""CONTRIBUTING.md: its table of imports is the code's, and the files that it names exist."""

import ast
import re
from pathlib import Path

ROOT = Path(__file__).parent.parent.parent
PAGE = (ROOT / "CONTRIBUTING.md").read_text()
SECTIONS = dict(re.findall(r"^## (.*?)\n(.*?)(?=^## |\Z)", PAGE, re.M | re.S))


def rows(section):
    """The cells of each row of a section's table, without its head."""
    lines = [line.strip("|").split("|") for line in SECTIONS[section].splitlines() if line.startswith("|")]
    return [[cell.strip() for cell in line] for line in lines[2:]]


def imported(part):
    """Top-level names that a folder or a script imports."""
    single = ROOT / f"{part}.py"
    for path in [single] if single.exists() else sorted((ROOT / part).rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Import):
                yield from (alias.name.split(".")[0] for alias in node.names)
            elif isinstance(node, ast.ImportFrom) and node.level == 0:
                yield node.module.split(".")[0]


def test_the_table_of_imports_is_that_of_the_code():
    table = [(re.findall(r"`(\w+)`", parts), told) for parts, told in rows("Who imports whom")]
    everything, above = {part for parts, _ in table for part in parts}, set()
    for parts, told in table:
        allowed = set(re.findall(r"`(\w+)`", told)) | (above if told.startswith("all") else set())
        allowed = everything if told == "anything" else allowed
        for part in parts:
            local = set(imported(part)) & everything - {part}
            assert local <= allowed, f"{part} imports {sorted(local - allowed)}"
        above |= set(parts)
    folders = {path.parent.name for path in ROOT.glob("*/__init__.py")} | {path.stem for path in ROOT.glob("*.py")}
    assert folders <= everything


def test_the_files_to_touch_exist_and_are_as_many_as_told():
    for what, count, which in rows("To add something"):
        names = re.findall(r"`([\w/]+\.(?:py|toml|md))`", which.partition(" (and ")[0])
        if what not in ("a noise schedule", "a setting", "a claim"):  # which name alternatives, or a folder
            assert len(names) == int(count), what
        for name in re.findall(r"`([\w/]+\.\w+)`", which):
            assert (ROOT / name).parent.is_dir(), name
            assert "NAME" in name or (ROOT / name).is_file(), name
    for name in re.findall(r"`((?:\w+/)+\w*\.?\w*)`", PAGE):
        assert "NAME" in name or (ROOT / name).exists(), name

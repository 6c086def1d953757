"""docs/math.md: the functions that it names exist, and the lines that it quotes are theirs."""

import ast
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent.parent
PAGE = (ROOT / "docs" / "math.md").read_text()


def functions(path):
    """Dotted name -> source lines, of every function of a file and of its classes."""
    text, sources = path.read_text(), {}
    lines = text.split("\n")
    for node in ast.parse(text).body:
        methods = node.body if isinstance(node, ast.ClassDef) else [node]
        prefix = f"{node.name}." if isinstance(node, ast.ClassDef) else ""
        for function in methods:
            if isinstance(function, ast.FunctionDef):
                sources[prefix + function.name] = lines[function.lineno - 1 : function.end_lineno]
    return sources


def pieces():
    """The page in order: ("text", words between code blocks) and ("python", the lines of a block)."""
    for position, part in enumerate(re.split(r"```(\w+)\n(.*?)```\n", PAGE, flags=re.S)):
        kind = position % 3
        if kind == 0:
            yield "text", part
        elif kind == 1:
            language = part
        else:
            yield language, part.strip("\n")


def quotes():
    """(functions named since the last quoted block or before it, files named so far, block) for each python block."""
    named, files = [], []
    for kind, part in pieces():
        if kind == "text":
            if "\n## " in part or "\n### " in part:
                named, files = [], []
            named += [name for name in re.findall(r"`([\w.]+)`", part)]
            files += re.findall(r"\[\w+(?:/\w+)*\.py\]\(\.\./([\w/]+\.py)\)", part)
        elif kind == "python":
            yield list(named), list(files), part


QUOTES = list(quotes())


def test_the_page_quotes_every_part_of_the_mathematics():
    assert len(QUOTES) > 25 and all(files for _, files, _ in QUOTES)
    samplers = {file for _, files, _ in QUOTES for file in files if file.startswith("sampling/")}
    loops = [f"samplers/{name}" for name in ("ddpm", "ddim", "dpm", "heun", "sde")]
    assert {f"sampling/{name}.py" for name in (*loops, "flow", "consistency", "guidance", "loss")} <= samplers


@pytest.mark.parametrize("named, files, block", QUOTES, ids=[block.split("\n")[0][:50] for *_, block in QUOTES])
def test_the_quoted_lines_stand_in_a_function_that_is_named_above_them(named, files, block):
    sources = {name: source for file in files for name, source in functions(ROOT / file).items()}
    lines = [line.strip() for line in block.split("\n")]
    holders = []
    for name in named:
        own = [line.strip() for line in sources.get(name, [])]
        if any(own[i : i + len(lines)] == lines for i in range(len(own))):
            holders.append(name)
    assert holders, f"none of {named} in {files} holds these lines:\n{block}"


def test_every_named_function_exists():
    for named, files, _ in QUOTES:
        known = {name for file in files for name in functions(ROOT / file)}
        assert all(name in known for name in named if re.fullmatch(r"[A-Z]\w+\.\w+", name)), (named, files)

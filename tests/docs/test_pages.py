"""All pages: links resolve, command lines name scripts and flags that exist, Python runs, methods are as generated."""

import contextlib
import io
import re
import runpy
import shlex
import sys
from functools import cache
from pathlib import Path

import pytest
import torch

import adapters
from config.read import fields
from inference import settings as call_settings
from recipes.settings import all_parts

ROOT = Path(__file__).parent.parent.parent
PAGES = sorted(
    [*ROOT.glob("*.md"), *ROOT.glob("docs/**/*.md"), *ROOT.glob("weights/*/README.md")],
    key=lambda path: path.relative_to(ROOT).parts,
)
NAMES = [str(path.relative_to(ROOT)) for path in PAGES]
FENCE = re.compile(r"^```(\w*)\n(.*?)^```", re.M | re.S)


@cache
def anchors(page):
    """The anchors of a page's headings, as GitHub makes them."""
    seen, made = {}, set()
    for title in re.findall(r"^#+ (.*)$", FENCE.sub("", page.read_text()), re.M):
        text = re.sub(r"\[(.*?)\]\(.*?\)", r"\1", title).strip().lower()
        slug = re.sub(r"[^\w\- ]", "", text).replace(" ", "-")
        made.add(f"{slug}-{seen[slug]}" if slug in seen else slug)
        seen[slug] = seen.get(slug, 0) + 1
    return made


@pytest.mark.parametrize("page", PAGES, ids=NAMES)
def test_every_link_resolves(page):
    text = re.sub(r"`[^`\n]*`", "", FENCE.sub("", page.read_text()))
    for target in re.findall(r"\]\(([^)\s]+)\)", text):
        if target.startswith(("http://", "https://")):
            continue
        path, _, anchor = target.partition("#")
        there = (page.parent / path).resolve() if path else page
        assert there.exists() and there.is_relative_to(ROOT), f"{target} leads nowhere"
        if anchor:
            assert anchor in anchors(there), f"{target}: the headings there are {', '.join(sorted(anchors(there)))}"


def command_lines(page):
    """Command lines that start a Python program, from code blocks and from code in a sentence."""
    text = page.read_text()
    lines = [line for language, block in FENCE.findall(text) if language == "bash" for line in block.splitlines()]
    lines += re.findall(r"`([^`\n]*python [^`\n]*)`", FENCE.sub("", text))
    for line in lines:
        for command in line.split(" && "):
            with contextlib.suppress(ValueError):  # an apostrophe in a sentence
                words = shlex.split(re.sub(r"^[A-Z_]+=\S+ ", "", command), comments=True)
                if words[:1] == ["python"] and len(words) > 1:
                    yield words[1:]


COMMANDS = sorted({tuple(words) for page in PAGES for words in command_lines(page)})


@cache
def known_flags(script):
    """The flags of a script or module: by its settings, else by what it prints for --help."""
    if script == ("train.py",):
        return {name.replace("_", "-") for name in fields(all_parts())}
    if script == ("sample.py",):
        return {name.replace("_", "-") for parts in call_settings.PARTS.values() for name in fields(parts)}
    printed, argv = io.TextIOWrapper(io.BytesIO(), write_through=True), sys.argv
    sys.argv = [script[-1], "--help"]
    try:
        with contextlib.redirect_stdout(printed), pytest.raises(SystemExit):
            if script[0] == "-m":
                runpy.run_module(script[1], run_name="__main__", alter_sys=True)
            else:
                runpy.run_path(str(ROOT / script[0]), run_name="__main__")
    finally:
        sys.argv = argv
    return set(re.findall(r"--([a-z][a-z-]*)", printed.buffer.getvalue().decode()))


@pytest.mark.parametrize("words", COMMANDS, ids=" ".join)
def test_a_command_line_names_a_script_and_flags_that_exist(words):
    script = words[:2] if words[0] == "-m" else words[:1]
    if script == ("-m", "pytest") or words[0].startswith("-") and words[0] != "-m":
        return
    path = ROOT / script[-1].replace(".", "/") if script[0] == "-m" else ROOT / script[0]
    assert path.is_file() or path.with_suffix(".py").is_file() or (path / "__main__.py").is_file(), f"no {path}"
    flags = {word[2:].partition("=")[0] for word in words if word.startswith("--")} - {"help"}
    if flags:
        assert flags <= known_flags(script), f"{' '.join(script)} has no --{', --'.join(flags - known_flags(script))}"
    for word in words:
        if word.startswith("configs/") and word.endswith(".toml"):
            assert (ROOT / word).is_file(), f"no {word}"


def test_there_are_pages_and_commands():
    scripts = {words[0] if words[0] != "-m" else words[1] for words in COMMANDS}
    assert len(PAGES) > 30 and {"train.py", "sample.py", "evaluate.py", "compare.py", "weights.convert"} <= scripts


BLOCKS = [block for language, block in FENCE.findall((ROOT / "docs/python.md").read_text()) if language == "python"]


@pytest.mark.parametrize("block", BLOCKS, ids=range(len(BLOCKS)))
def test_the_python_of_the_page_runs(block, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    torch.manual_seed(0)
    names = {}
    exec(block, names)
    for name in ("latents", "z"):
        assert name not in names or names[name].isfinite().all()
    assert sum(not line.startswith(("import", "from")) and bool(line.strip()) for line in block.splitlines()) <= 20


def test_the_python_page_has_what_it_promises():
    text = "\n".join(BLOCKS)
    assert len(BLOCKS) >= 4 and all(
        word in text for word in ("attach(", "merge(", "forward_with_cfg(", "weights.load(")
    )


def test_the_pages_of_methods_are_as_their_docstrings():
    methods = runpy.run_path(str(ROOT / "docs/methods/__main__.py"), run_name="methods")
    made = methods["pages"]()
    folder = ROOT / "docs" / "methods"
    assert {path.name for path in folder.glob("*.md")} == made.keys()
    changed = [name for name, text in made.items() if (folder / name).read_text() != text]
    assert not changed, f"python -m docs.methods makes {', '.join(changed)} anew"


def test_every_method_has_its_page():
    others = {"finediffusion", "drivedit", "dreambooth", "textual_inversion", "lcm_lora", "controlnet"}
    others |= {"lora_plus", "huber"}
    named = {path.stem for path in (ROOT / "docs" / "methods").glob("*.md")} - {"README"}
    assert named == set(adapters.METHODS) | others | {"attend_and_excite"}

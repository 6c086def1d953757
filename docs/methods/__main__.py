"""Make the pages of docs/methods: python -m docs.methods

Each page is the docstrings of a method and what methods.toml says besides; the parameters are counted. tests/docs holds
the pages to this program, so that a page changes with its docstring.
"""

import inspect
import re
import tomllib
from importlib import import_module
from pathlib import Path

import torch
from torch import nn

import adapters
from dit import ControlledDiT, DiT
from unet import ControlNet, TextEncoder, UNet
from unet.sizes import TEXT_ENCODERS, UNETS

HERE = Path(__file__).parent
ROOT = HERE.parent.parent
MODELS = {
    "dit": "DiT-XL/2 at 256 pixels",
    "unet": "UNet of Stable Diffusion 1",
    "text": "text encoder of Stable Diffusion 1",
}
MADE = "<!-- python -m docs.methods makes this page from docstrings and methods.toml: edit those -->\n"


def main() -> None:
    """Write every page and the index beside this file."""
    for name, text in pages().items():
        (HERE / name).write_text(text)
    print(f"{len(pages())} pages in {HERE.relative_to(ROOT)}")


def pages() -> dict[str, str]:
    """File name -> text, of all pages; README.md is the index."""
    table = tomllib.loads((HERE / "methods.toml").read_text())
    if missing := adapters.METHODS.keys() - table.keys():
        raise ValueError(f"methods.toml says nothing of {', '.join(missing)}")
    counted = {name: counts(row) for name, row in table.items()}
    made = {f"{name}.md": MADE + page(name, row, counted[name]) for name, row in table.items()}
    return {"README.md": MADE + index(table, counted)} | made


def page(name: str, row: dict, counted: list[tuple[str, str, int, int]]) -> str:
    """The page of one method: docstrings, drawing, when, cost, where."""
    modules = [import_module(path) for path in modules_of(name, row)]
    parts = [f"# {row['title']}"]
    parts += [prose(inspect.getdoc(module)) for module in modules]
    if row["drawing"] != "docstring":
        parts += ["```text\n" + row["drawing"].strip("\n") + "\n```"]
    parts += ["## When", row["when"].strip(), "## What it costs"]
    if counted:
        lines = [f"| {MODELS[kind]} | {code(spec, True)} | {n:,} | {n / of:.2%} |" for kind, spec, n, of in counted]
        parts += ["\n".join(["| model | method | numbers that train | of the model |", "|---|---|---:|---:|", *lines])]
    parts += [row["costs"]] if "costs" in row else []
    if name in adapters.METHODS:
        stays = [mixin.__name__ for mixin in mixins(modules[0]) if not hasattr(mixin, "merge")]
        parts += ["It stays a path of its own: no weights can hold it." if stays else "It merges into the weights."]
    parts += ["## How", how(name, row, modules)]
    configs = [f"[{config}.toml](../../configs/{config}.toml)" for config in row["configs"]]
    files = ", ".join(link(module.__file__) for module in modules)
    parts += [
        "## Where",
        f"- File: {files}\n- Config: {', '.join(configs) or 'none; a flag is enough'}\n- Source: {row['source']}",
    ]
    return "\n\n".join(part for part in parts if part) + "\n"


def how(name: str, row: dict, modules: list) -> str:
    """Options or commands, and the docstrings of what does it."""
    parts = []
    if name in adapters.METHODS:
        signature = inspect.signature(adapters.METHODS[name]).parameters.values()
        options = [code(f"{p.name}={p.default}") for p in signature if p.kind is p.KEYWORD_ONLY]
        told = f"Options and their defaults: {', '.join(options)}." if options else "It has no options."
        parts += [f'`--adapter {name}`, or `attach(model, "{name}")` in Python. {told}']
    if "commands" in row:
        parts += ["```bash\n" + row["commands"].strip() + "\n```"]
    things = [*mixins(modules[0]), adapters.METHODS[name]] if name in adapters.METHODS else []
    for dotted in row.get("names", []):
        module, _, attribute = dotted.partition(":")
        things.append(getattr(import_module(module), attribute))
    for thing in things:
        parts += [f"**{code(thing.__name__)}** in {link(inspect.getfile(thing))}", prose(inspect.getdoc(thing))]
    return "\n\n".join(parts)


def modules_of(name: str, row: dict) -> list[str]:
    """Dotted names of the modules whose docstrings the page has, the method's own by default."""
    return row["modules"] if "modules" in row else [adapters.METHODS[name].__module__]


def index(table: dict, counted: dict) -> str:
    """One line for each method."""
    about = (
        "A page for each: equation, drawing, when, cost, file, config, source. Counts are of DiT-XL/2 and of the UNet "
        "of Stable Diffusion 1, by the first spec of the page."
    )
    head = "| method | what trains | DiT-XL/2 | UNet | source |\n|---|---|---:|---:|---|"
    lines = ["# Methods", about, head]
    for name, row in table.items():
        first = {}
        for kind, _, trained, _ in counted[name]:
            first.setdefault(kind, f"{trained:,}")
        cells = [f"[{row['title']}]({name}.md)", row["trains"], first.get("dit", ""), first.get("unet", "")]
        lines[-1] += "\n| " + " | ".join([*cells, row["source"]]) + " |"
    return "\n\n".join(lines) + "\n"


def mixins(module: object) -> list[type]:
    """The mixins that a module of adapters/methods defines."""
    own = [cls for cls in vars(module).values() if inspect.isclass(cls) and cls.__module__ == module.__name__]
    return [cls for cls in own if hasattr(cls, "added")]


def counts(row: dict) -> list[tuple[str, str, int, int]]:
    """(model, spec, numbers that train, of the model) for each spec of a row."""
    return [(kind, spec, *count(kind, spec)) for kind in MODELS for spec in row.get(kind, [])]


def count(kind: str, spec: str) -> tuple[int, int]:
    """The numbers that train, and those that the model has without the method."""
    with torch.device("meta"):
        model = build(kind)
        total = adapters.counts(model)[1]
        if spec.startswith("controlnet"):
            branch = ControlledDiT(model).control if kind == "dit" else ControlNet.of(model, 1 if "mask" in spec else 3)
            return adapters.counts(branch)[1], total
        return adapters.counts(adapters.attach(model, spec.split()))[0], total


def build(kind: str) -> nn.Module:
    """The full-size model of that kind, without weights."""
    if kind == "dit":
        return DiT.from_name("DiT-XL/2")
    return UNet(UNETS["SD-1"]) if kind == "unet" else TextEncoder(TEXT_ENCODERS["CLIP-L"])


def prose(docstring: str) -> str:
    """A docstring as Markdown: indented runs of lines are code, arXiv numbers are links."""
    parts = []
    for paragraph in docstring.split("\n\n"):
        for indented, lines in runs(paragraph.split("\n")):
            text = "\n".join(lines)
            if indented:
                parts.append("```text\n" + inspect.cleandoc("\n" + text) + "\n```")
            else:
                text = re.sub(r"(?<!`)([*<])", r"\\\1", text)
                parts.append(re.sub(r"arXiv\s+(\d{4}\.\d{4,5})", r"[arXiv \1](https://arxiv.org/abs/\1)", text))
    return "\n\n".join(parts)


def runs(lines: list[str]) -> list[tuple[bool, list[str]]]:
    """Lines in runs of one kind: (whether they are indented, the lines)."""
    grouped = []
    for line in lines:
        indented = line.startswith("    ")
        if not grouped or grouped[-1][0] != indented:
            grouped.append((indented, []))
        grouped[-1][1].append(line)
    return grouped


def code(text: str, cell: bool = False) -> str:
    """Text as code; in a table's cell a bar is escaped."""
    return "`" + (text.replace("|", "\\|") if cell else text) + "`"


def link(file: str) -> str:
    """A source file as a link."""
    path = Path(file).relative_to(ROOT)
    return f"[{path}](../../{path})"


if __name__ == "__main__":
    main()

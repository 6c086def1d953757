"""Make docs/rows.md: python -m docs.rows

The page is a table of what the studies and the other tools do, each row with its command and its test, from rows.toml.
tests/docs/test_rows.py holds the page to this program, reads every command and finds every test.
"""

import tomllib
from pathlib import Path

HERE = Path(__file__).parent
MADE = "<!-- python -m docs.rows makes this page from rows.toml: edit that -->\n"
HEAD = """# Row by row

What the studies behind this package and the tools beside it do: the command that does it here, and the test that holds
it, in `tests/`. Commands that name a published model need its download (`python -m weights.download`); without
`--model` they take the small one that ships. `python -m tests.long.rows` runs each of them in its short form, but for
those that need a download or several trainings.
"""


def main() -> None:
    """Write the page."""
    (HERE / "rows.md").write_text(page())


def sections() -> dict[str, dict]:
    """Name -> title and rows (what, command, test), of all sections; the rows of "open" are (what, what is missing)."""
    return tomllib.loads((HERE / "rows.toml").read_text())


def page() -> str:
    """The text of the page."""
    parts = [MADE + HEAD]
    for name, section in sections().items():
        if name == "open":
            lines = [f"- {what}: {missing}." for what, missing in section["rows"]]
            parts.append("## Not whole\n\n" + "\n".join(lines) + "\n")
            continue
        lines = [f"| {what} | `python {cell(command)}` | `{test}` |" for what, command, test in section["rows"]]
        parts.append(
            "\n".join([f"## {section['title']}", "", "| what | command | test |", "|---|---|---|", *lines, ""])
        )
    return "\n".join(parts)


def cell(command: str) -> str:
    """A command in a cell of a table."""
    return command.replace("|", "\\|")


if __name__ == "__main__":
    main()

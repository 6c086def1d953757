"""A comparison as one HTML file without links: the protocol, the table with the best of each column, the pictures.

The best is bold where it is beyond the spread: where each of its runs is better than each run of the others.
"""

import base64
from html import escape
from pathlib import Path

from experiments.table import Column, cell, columns_of, group_rows, numbers

STYLE = """
body { font: 15px/1.5 system-ui, sans-serif; color: #1a1a1a; max-width: 1200px; margin: 2rem auto; padding: 0 1rem }
table { border-collapse: collapse; font-variant-numeric: tabular-nums; display: block; overflow-x: auto }
th, td { padding: .3rem .7rem; text-align: right; border-bottom: 1px solid #ddd; white-space: nowrap }
th:first-child, td:first-child { text-align: left; position: sticky; left: 0; background: #fff }
td small { color: #777; display: block } td.best { font-weight: 600 }
figure { display: inline-block; margin: 1rem 1rem 1rem 0; vertical-align: top } img { max-width: 560px }
dt { font-weight: 600; float: left; clear: left; width: 11rem } dd { margin-left: 11.5rem; color: #444 }
"""


def html(rows: list[dict], grids: dict[str, Path], title: str, protocol: str) -> str:
    """The page. rows: as in table.py; grids: the files to show, by the name of their row."""
    columns, groups = columns_of(rows), group_rows(rows)
    best = {column.key: best_of(groups, column) for column in columns}
    head = "".join(f"<th>{escape(column.title)}</th>" for column in columns)
    body = "".join(
        f"<tr><td>{escape(name)}</td>"
        + "".join(
            f"<td{' class=best' if best[column.key] == name else ''}>{two_lines(cell(group, column))}</td>"
            for column in columns
        )
        + "</tr>\n"
        for name, group in groups.items()
    )
    terms = "".join(f"<dt>{escape(column.title)}</dt><dd>{escape(column.meaning)}</dd>" for column in columns)
    figures = "".join(
        f'<figure><figcaption>{escape(name)}</figcaption><img alt="{escape(name)}" '
        f'src="data:image/png;base64,{base64.b64encode(path.read_bytes()).decode()}"></figure>\n'
        for name, path in grids.items()
    )
    return (
        f'<!doctype html><html lang="en"><meta charset="utf-8"><title>{escape(title)}</title>'
        f"<style>{STYLE}</style><h1>{escape(title)}</h1><p>{escape(protocol)}</p>"
        f"<table><tr><th></th>{head}</tr>\n{body}</table><dl>{terms}</dl>{figures}</html>\n"
    )


def best_of(groups: dict[str, list[dict]], column: Column) -> str | None:
    """The row whose every run is better than every run of all other rows; None if the runs overlap.

    None too in a column that has no best, of a single row, and where the rows have one run each: what these differ by
    may be what two runs of one row differ by.
    """
    runs = {name: [column.best * value for value in numbers(rows, column)] for name, rows in groups.items()}
    runs = {name: values for name, values in runs.items() if values}
    if not column.best or len(runs) < 2 or max(map(len, runs.values())) < 2:
        return None
    name = max(runs, key=lambda name: min(runs[name]))
    others = [value for other, values in runs.items() if other != name for value in values]
    return name if len(runs[name]) > 1 and min(runs[name]) > max(others) else None


def two_lines(text: str) -> str:
    """ "mean (low to high)" with the range on a line of its own."""
    middle, bracket, spread = text.partition(" (")
    return f"{middle}<small>{spread.removesuffix(')')}</small>" if bracket else middle

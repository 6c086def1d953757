"""The result of a comparison as Markdown and as one HTML page with images: a row for each method, mean and range.

A row of numbers is a dict with "method", "way", "seed", and under "scores" the means of scorers. The table leaves out
columns without a number.
"""

import base64
from html import escape
from pathlib import Path
from statistics import mean
from typing import NamedTuple


class Column(NamedTuple):
    """One column of the table."""

    key: str  # of the numbers
    title: str
    format: str
    meaning: str
    best: int  # 1: the largest, -1: the smallest, 0: neither


COLUMNS = (
    Column("trained", "trained parameters", ",.0f", "numbers that the optimizer changes", 0),
    Column("megabytes", "on disk, MB", ".2f", "files that the run leaves for sampling", 0),
    Column("step_seconds", "s a step", ".3f", "median of the run's steps", 0),
    Column("peak_gib", "peak, GiB", ".2f", "most memory of the training process", 0),
    Column("class_accuracy", "class accuracy", ".2f", "share of samples that the classifier assigns to their class", 1),
    Column("kid_x1000", "KID x1000", ".1f", "kernel distance to the held-out images, 0 for equal distributions", -1),
    Column("fid", "FID", ".2f", "Frechet distance to them; at few images it rewards copies", -1),
    Column("precision", "precision", ".2f", "share of samples within the real images' neighbourhoods", 1),
    Column("recall", "recall", ".2f", "share of real images within the samples' neighbourhoods", 1),
    Column("density", "density", ".2f", "how many real neighbourhoods hold a sample, 1 for equal distributions", 0),
    Column("coverage", "coverage", ".2f", "share of real images with a sample in their neighbourhood", 1),
    Column("diversity", "diversity", ".2f", "mean distance between the samples nearest to one training image", 1),
    Column("copies", "copies", ".2f", "share nearer to a training image than the nearest 5 % of real ones are", -1),
    Column("copies_pixels", "copies, pixels", ".2f", "the same in pixels", -1),
    Column(
        "authentic",
        "authentic",
        ".2f",
        "share of samples whose nearest training image is nearer to another of its own kind",
        1,
    ),
)


def grouped(rows: list[dict]) -> dict[str, list[dict]]:
    """{"method" or "method, way": the rows of its seeds}."""
    groups = {}
    for row in rows:
        groups.setdefault(", ".join(filter(None, (row["method"], row["way"]))), []).append(row)
    return groups


def used(rows: list[dict]) -> list[Column]:
    """The columns for which some row has a number, those of the scorers last."""
    scored = {
        name: Column(name, name, ".2f", "mean of the scorer", 1) for row in rows for name in row.get("scores", {})
    }
    return [column for column in (*COLUMNS, *scored.values()) if values(rows, column)]


def values(rows: list[dict], column: Column) -> list[float]:
    """The numbers of a column, one for each row that has it."""
    numbers = (row.get(column.key, row.get("scores", {}).get(column.key)) for row in rows)
    return [number for number in numbers if number is not None]


def cell(rows: list[dict], column: Column) -> str:
    """ "0.90 (0.88 to 0.93)" over the seeds, "0.90" where all are equal, "" without a number."""
    numbers = values(rows, column)
    return spread(numbers, column.format) if numbers else ""


def spread(numbers: list[float], digits: str = ".2f") -> str:
    """The mean, then the smallest and the largest value unless all three print alike."""
    low, middle, high = (format(value, digits) for value in (min(numbers), mean(numbers), max(numbers)))
    return middle if low == high else f"{middle} ({low} to {high})"


def table(head: list[str], lines: list[list[str]]) -> str:
    """A Markdown table whose first column is text and whose others are numbers."""
    rows = [head, ["---"] + ["---:"] * (len(head) - 1), *lines]
    return "".join(f"| {' | '.join(row)} |\n" for row in rows)


def markdown(rows: list[dict]) -> str:
    """The table, and a line on the meaning of each column."""
    columns = used(rows)
    lines = [[name, *(cell(group, column) for column in columns)] for name, group in grouped(rows).items()]
    terms = "".join(f"- *{column.title}*: {column.meaning}\n" for column in columns)
    return table(["", *(column.title for column in columns)], lines) + "\n" + terms


STYLE = """
body { font: 15px/1.5 system-ui, sans-serif; color: #1a1a1a; max-width: 1200px; margin: 2rem auto; padding: 0 1rem }
table { border-collapse: collapse; font-variant-numeric: tabular-nums; display: block; overflow-x: auto }
th, td { padding: .3rem .7rem; text-align: right; border-bottom: 1px solid #ddd; white-space: nowrap }
th:first-child, td:first-child { text-align: left; position: sticky; left: 0; background: #fff }
td small { color: #777; display: block } td.best { font-weight: 600 }
figure { display: inline-block; margin: 1rem 1rem 1rem 0; vertical-align: top } img { max-width: 560px }
dt { font-weight: 600; float: left; clear: left; width: 11rem } dd { margin-left: 11.5rem; color: #444 }
"""


def html(rows: list[dict], images: dict[str, Path], title: str, protocol: str) -> str:
    """One file without links: the protocol, the table with the best of each column bold, an image of each row."""
    columns, groups = used(rows), grouped(rows)
    best = {column.key: winner(groups, column) for column in columns}
    head = "".join(f"<th>{escape(column.title)}</th>" for column in columns)
    body = "".join(
        f"<tr><td>{escape(name)}</td>"
        + "".join(
            f"<td{' class=best' if best[column.key] == name else ''}>{split(cell(group, column))}</td>"
            for column in columns
        )
        + "</tr>\n"
        for name, group in groups.items()
    )
    terms = "".join(f"<dt>{escape(column.title)}</dt><dd>{escape(column.meaning)}</dd>" for column in columns)
    figures = "".join(
        f'<figure><figcaption>{escape(name)}</figcaption><img alt="{escape(name)}" '
        f'src="data:image/png;base64,{base64.b64encode(path.read_bytes()).decode()}"></figure>\n'
        for name, path in images.items()
    )
    return (
        f'<!doctype html><html lang="en"><meta charset="utf-8"><title>{escape(title)}</title>'
        f"<style>{STYLE}</style><h1>{escape(title)}</h1><p>{escape(protocol)}</p>"
        f"<table><tr><th></th>{head}</tr>\n{body}</table><dl>{terms}</dl>{figures}</html>\n"
    )


def winner(groups: dict[str, list[dict]], column: Column) -> str | None:
    """The name of the row with the best mean; None if the column has no best or fewer than two rows."""
    means = {name: mean(numbers) for name, group in groups.items() if (numbers := values(group, column))}
    if not column.best or len(means) < 2:
        return None
    return max(means, key=lambda name: column.best * means[name])


def split(text: str) -> str:
    """HTML of a cell: the range stands on a line of its own."""
    middle, bracket, spread = text.partition(" (")
    return f"{middle}<small>{spread.removesuffix(')')}</small>" if bracket else middle

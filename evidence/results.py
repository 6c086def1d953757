"""From numbers to a section of the page: statements with their verdicts, and tables of runs."""

from statistics import mean
from typing import NamedTuple

from experiments.table import COLUMNS, Column, spread, table
from metrics.downstream.gain import gain

HOLDS, REVERSE, NEITHER = "holds", "the reverse holds", "no difference"
BY_KEY = {column.key: column for column in COLUMNS}


class Statement(NamedTuple):
    """One sentence that the numbers decide: HOLDS, REVERSE or NEITHER."""

    text: str
    verdict: str
    numbers: str


class Result(NamedTuple):
    """What a claim came to. details: Markdown of the tables, with their notes and pictures."""

    statements: list[Statement]
    details: str


def verdict(first: list[float], second: list[float]) -> str:
    """Whether every run of the first is above every run of the second."""
    return HOLDS if min(first) > max(second) else REVERSE if max(first) < min(second) else NEITHER


def higher(text: str, first: list[float], second: list[float], digits: str = ".2f") -> Statement:
    """The statement that the first numbers are above the second."""
    return Statement(text, verdict(first, second), f"{mean(first):{digits}} against {mean(second):{digits}}")


def lower(text: str, first: list[float], second: list[float], digits: str = ".2f") -> Statement:
    """The statement that the first numbers are below the second."""
    return higher(text, first, second, digits)._replace(verdict=verdict(second, first))


def gains(text: str, first: list[float], second: list[float], digits: str = ".3f") -> Statement:
    """The statement that the first accuracies are above the second by more than the half width of the 95 % interval."""
    difference, half = gain(first, second)
    found = HOLDS if difference > half else REVERSE if -difference > half else NEITHER
    return Statement(text, found, f"{difference:+{digits}} +- {half:{digits}}")


class Runs(NamedTuple):
    """Rows of numbers, a row for each run, and the key that tells the compared ones apart: "method" or "variant"."""

    rows: list[dict]
    by: str = "method"

    def values(self, key: str, name: str) -> list[float]:
        """The numbers of one method or variant, by seed."""
        return [row[key] for row in self.rows if row[self.by] == name]

    def higher(self, text: str, key: str, first: str, second: str, digits: str = "") -> Statement:
        """The statement that one method's or variant's numbers are above another's."""
        digits = digits or (BY_KEY[key].format if key in BY_KEY else ".2f")
        return higher(text, self.values(key, first), self.values(key, second), digits)

    def lower(self, text: str, key: str, first: str, second: str, digits: str = "") -> Statement:
        """The statement that one method's or variant's numbers are below another's."""
        statement = self.higher(text, key, first, second, digits)
        return statement._replace(verdict=verdict(self.values(key, second), self.values(key, first)))

    def table(self, names: dict[str, str], columns: list[str | Column], corner: str = "") -> str:
        """A line for each method or variant, by its title in `names`; cells are empty where no run has a number."""
        columns = [BY_KEY[column] if isinstance(column, str) else column for column in columns]
        lines = []
        for name, title in names.items():
            rows = [row for row in self.rows if row[self.by] == name]
            values = [[row[column.key] for row in rows if column.key in row] for column in columns]
            lines.append([title, *(spread(x, c.format) if x else "" for x, c in zip(values, columns))])
        return table([corner, *(column.title for column in columns)], lines)


def arms_table(arms: dict[str, list[list[float]]], classes: list[str], digits: str) -> tuple[dict, str]:
    """{arm: recalls of each class, of each seed} -> {arm: balanced accuracies}, and the table of accuracies and gains.

    The first arm is the one that the others gain over.
    """
    accuracy = {name: [mean(recalls) for recalls in runs] for name, runs in arms.items()}
    base = next(iter(arms))
    lines = []
    for name, runs in arms.items():
        gained = "" if name == base else gains("", accuracy[name], accuracy[base], digits).numbers
        lines.append([name, spread(accuracy[name], digits), gained, *(f"{mean(recall):.2f}" for recall in zip(*runs))])
    return accuracy, table(["trained on", "balanced accuracy", f"gain over {base}", *classes], lines)

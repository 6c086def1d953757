"""What the papers claim, tried at small scale: one file a claim; `python -m evidence` runs them and writes the page.

A claim is a module with three parts: its docstring says what is claimed, by whom, and what is done; `numbers(work,
quick)` does it and returns what a JSON file can hold; `section(numbers)` makes of these alone the Markdown of the page.
NAME.toml beside it, where there is one, is the comparison that it runs (see compare.py).
"""

from pathlib import Path

import compare
from metrics import report
from metrics.report import table

__all__ = ["below", "compared", "of", "planned", "spread", "table", "verdict", "verdicts"]

HERE = Path(__file__).resolve().parent


def compared(name: str, work: Path, quick: bool, methods=None) -> list[dict]:
    """The rows of the comparison NAME.toml, trained, drawn and measured as far as `work` does not hold them.

    methods: those that are wanted, all by default.
    """
    plan = planned(name, quick)
    plan.methods = {method: plan.methods[method] for method in methods or plan.methods}
    return compare.compare(plan, work / name)


def planned(name: str, quick: bool) -> compare.Plan:
    """The comparison NAME.toml, or its short form."""
    plan = compare.read(HERE / f"{name}.toml")
    return compare.shortened(plan) if quick else plan


def of(rows: list[dict], key: str, **which) -> list[float]:
    """The numbers `key` of the rows that have these values, as of(rows, "fid", method="lora"), by seed."""
    return [row[key] for row in rows if all(row[name] == value for name, value in which.items())]


def spread(values: list[float], digits: int = 2) -> str:
    """ "0.90 (0.88 to 0.93)": the mean, and the smallest and largest of the runs."""
    return report.spread(values, f".{digits}f")


def verdict(more: list[float], less: list[float]) -> str:
    """Whether every run of one is above every run of the other: "holds here", "the reverse holds here" or neither."""
    if min(more) > max(less):
        return "holds here"
    return "the reverse holds here" if max(more) < min(less) else "no difference beyond the spread of the runs"


def verdicts(claims: dict[str, tuple[list[float], list[float]]]) -> str:
    """A line for each claim: what is said, of whose runs' numbers to be above whose, and the verdict."""
    return "\n" + "".join(f"- {claim}: **{verdict(*numbers)}**\n" for claim, numbers in claims.items())


def below(first: list[float], second: list[float]) -> tuple[list[float], list[float]]:
    """For `verdicts`: the first numbers are said to be below the second."""
    return second, first

"""Tables of numbers in Markdown: a row for each method and sampling variant, mean and range over its seeds.

A row of numbers is a dict with "method", "variant", "seed", under "scores" the numbers of scorers and under "styles"
shares of the samples. A column without numbers is left out of the table.
"""

from statistics import mean
from typing import NamedTuple


class Column(NamedTuple):
    """One column of a table."""

    key: str  # of the numbers
    title: str
    format: str = ".2f"
    meaning: str = ""
    best: int = 0  # 1: the largest, -1: the smallest, 0: neither


COLUMNS = (
    Column("trained", "trained parameters", ",.0f", "numbers that the optimizer changed"),
    Column("megabytes", "on disk, MB", ".2f", "files that the run leaves for sampling"),
    Column("minutes", "training, min", ".1f", "time of all steps, with the samples taken meanwhile"),
    Column("step_seconds", "s a step", ".3f", "median of the run's steps"),
    Column(
        "picture_seconds", "s a picture", ".2f", "time of a sampling call for each of its pictures, loading included"
    ),
    Column("peak_gib", "peak, GiB", ".2f", "most memory of the training process"),
    Column(
        "class_accuracy", "class accuracy", ".2f", "share of samples that a classifier assigns to their own class", 1
    ),
    Column("kid_x1000", "KID x1000", ".1f", "kernel distance to the held-out images, 0 for equal distributions", -1),
    Column("fid", "FID", ".2f", "Frechet distance to them; at few images it rewards copies", -1),
    Column("precision", "precision", ".2f", "share of samples within the real images' neighbourhoods", 1),
    Column("recall", "recall", ".2f", "share of real images within the samples' neighbourhoods", 1),
    Column("density", "density", ".2f", "how many real neighbourhoods hold a sample, 1 for equal distributions"),
    Column("coverage", "coverage", ".2f", "share of real images with a sample in their neighbourhood", 1),
    Column("diversity", "diversity", ".2f", "mean distance between the samples nearest to one training image", 1),
    Column("patch_distance", "textures", ".2f", "distance of patches to the held-out images, 1: as these differ", -1),
    Column("nearest_class", "of their class", ".2f", "share nearest, in patches, to a training image of it", 1),
    Column("varied", "varied", ".2f", "distance of patches between samples of a class, 1: as of real images"),
    Column("copies_patches", "copies, patches", ".2f", "share nearer to one than the nearest 5 % of real ones are", -1),
    Column("clip_i", "CLIP-I", ".3f", "mean cosine of samples to the real images in CLIP, as published", 1),
    Column("dino", "DINO", ".3f", "the same in DINO", 1),
    Column("drift", "drift", ".2f", "change of the pictures of unrelated prompts, 1: as two of them differ", -1),
    Column("copies", "copies", ".2f", "share nearer to a training image than the nearest 5 % of real ones are", -1),
    Column("copies_pixels", "copies, pixels", ".2f", "the same in pixels", -1),
    Column(
        "authentic", "authentic", ".2f", "share further from their nearest training image than that is from another", 1
    ),
)


def arm(row: dict) -> str:
    """ "method" or "method, variant": what a row is a run of."""
    return ", ".join(filter(None, (row["method"], row["variant"])))


def group_rows(rows: list[dict]) -> dict[str, list[dict]]:
    """Arm -> the rows of its seeds."""
    groups = {}
    for row in rows:
        groups.setdefault(arm(row), []).append(row)
    return groups


def columns_of(rows: list[dict]) -> list[Column]:
    """The columns that some row has a number for, those of styles and scorers last."""
    names, styles = (dict.fromkeys(name for row in rows for name in row.get(key, {})) for key in ("scores", "styles"))
    more = [Column(name, name, ".2f", "share of the samples, by a network") for name in styles]
    more += [Column(name, name, ".2f", "mean score of the samples", 1) for name in names]
    return [column for column in (*COLUMNS, *more) if numbers(rows, column)]


def numbers(rows: list[dict], column: Column) -> list[float]:
    """The numbers of a column, of the rows that have one."""
    values = [(row.get("scores", {}) | row.get("styles", {}) | row).get(column.key) for row in rows]
    return [value for value in values if value is not None]


def cell(rows: list[dict], column: Column) -> str:
    """The spread of a column over the rows of one method, "" without a number."""
    values = numbers(rows, column)
    return spread(values, column.format) if values else ""


def spread(values: list[float], digits: str = ".2f") -> str:
    """ "0.90 (0.88 to 0.93)": mean, smallest and largest of the runs; "0.90" where all look alike."""
    low, middle, high = (format(value, digits) for value in (min(values), mean(values), max(values)))
    return middle if low == high else f"{middle} ({low} to {high})"


def table(head: list[str], lines: list[list[str]]) -> str:
    """A Markdown table whose first column is text and whose others are numbers."""
    rows = [[text.replace("|", "\\|").replace("\n", " ") for text in line] for line in (head, *lines)]
    rows.insert(1, ["---"] + ["---:"] * (len(head) - 1))
    return "".join(f"| {' | '.join(row)} |\n" for row in rows)


def markdown(rows: list[dict]) -> str:
    """A table of all methods, and a line for each column that says what it is."""
    columns = columns_of(rows)
    lines = [[name, *(cell(group, column) for column in columns)] for name, group in group_rows(rows).items()]
    terms = "".join(f"- *{column.title}*: {column.meaning}\n" for column in columns)
    return table(["", *(column.title for column in columns)], lines) + "\n" + terms

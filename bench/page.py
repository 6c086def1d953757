"""The table of the bench, docs/bench.md: a line a row, where each was measured, and the command that does it again."""

from bench.rows import ROWS, Row
from bench.sizes import FULL


def about(name: str, size: dict) -> str:
    """What is not the published size, for the row's first column."""
    (file, _, side), less = ROWS[name].ours.partition(":"), []
    has_depth = side in size["has_depth"] and "depth" not in ROWS[name].option
    if size["side"] < FULL["side"] and file in ("ours", "compiled", "xl", "commands"):
        less.append("tiny models")
    elif size["depth"] < FULL["depth"] and file in ("ours", "compiled", "commands") and has_depth:
        less.append(f"{size['depth']} of {FULL['depth']} blocks")
    elif file == "xl":
        less.append(f"{size['xl_side']} pixels")
    if name == "ddim":
        less.append(f"{size['steps']} steps")
    return ", ".join(less)


def asked(ratio: float, limit: float | None) -> str:
    """The ratio, and what is asked of it."""
    if limit is None:
        return f"{ratio:.2f}"
    return f"{ratio:.2f} (>= {-limit:.2f})" if limit < 0 else f"{ratio:.2f} (<= {limit:.2f})"


def line(name: str, row: Row, result: dict) -> str:
    """The row of the table."""
    what = row.what + (f", {result['size']}" if result.get("size") else "")
    first = f"| `{name}` | {what} | {row.named or 'none'}"
    if "failed" in result:
        return f"{first} | failed: {result['failed']} | | | | | |"
    unit, factor = ("s", 1) if min(result["ours"], result.get("other", 1)) > 0.1 else ("ms", 1000)
    ours, peak = f"{factor * result['ours']:.2f} {unit}", f"{result['peak']:.2f}"
    if not row.other:
        return f"{first} | {ours} | | | {result['rounds']} | {peak} | |"
    spread = f"{result['least']:.2f} to {result['most']:.2f}, {result['rounds']}"
    return (
        f"{first} | {ours} | {factor * result['other']:.2f} {unit} | {asked(result['ratio'], row.time)} | {spread} "
        f"| {peak} / {result['other_peak']:.2f} | {asked(result['memory'], row.memory)} |"
    )


def page(results: dict) -> str:
    """docs/bench.md."""
    places = list(dict.fromkeys(result["on"] for result in results.values()))
    text = [
        "# Bench\n",
        "`python -m bench` on random weights: ours and another's in processes of their own, a step of each in turn. A",
        "ratio is the median of the pairs', ours / other's, with what is asked of it in brackets; beside it are the",
        "least and the most, and the number of pairs. A row without another tells what ours takes. Peaks are GiB of",
        "resident memory during a step, weights and the libraries included. [Where both go](speed.md), and",
        "why some rows miss what is asked.\n",
        *(f"- {place}" for place in places),
        "- no GPU was at hand; `python -m bench --device cuda` measures one, by CUDA events\n"
        if not any("CUDA events" in place for place in places)
        else "",
        "| row | what | other | ours | other's | ratio of times | spread, pairs | peaks | ratio of peaks |",
        "|---|---|---|---:|---:|---:|---:|---:|---:|",
        *(line(name, ROWS[name], results[name]) for name in ROWS if name in results),
        "\nEach row by its command:\n\n```bash",
        *(results[name]["command"] for name in ROWS if name in results),
        "```",
    ]
    return "\n".join(text) + "\n"

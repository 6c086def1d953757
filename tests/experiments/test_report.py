"""A comparison as Markdown and as one page."""

import pytest

from data.output.grid import save_image
from experiments.page import best_of, html
from experiments.table import columns_of, group_rows, markdown, table


def row(method, seed, accuracy, variant="", **more):
    return {"method": method, "variant": variant, "seed": seed, "class_accuracy": accuracy, "network": "n"} | more


ROWS = [
    row("lora", 0, 0.5, kid_x1000=3.0),
    row("lora", 1, 0.7, kid_x1000=3.0),
    row("full", 0, 0.9, kid_x1000=8.0),
    row("full", 1, 0.9, kid_x1000=9.0),
]


def test_rows_are_grouped_by_method_and_variant():
    assert list(group_rows([row("a", 0, 0), row("a", 1, 0), row("a", 0, 0, "x")])) == ["a", "a, x"]


def test_columns_without_numbers_are_left_out():
    assert [column.key for column in columns_of(ROWS)] == ["class_accuracy", "kid_x1000"]
    assert [column.key for column in columns_of([row("a", 0, None, fid=1.0)])] == ["fid"]


def test_markdown_has_means_and_ranges_and_says_what_they_are():
    lines = markdown(ROWS).splitlines()
    assert lines[0] == "|  | class accuracy | KID x1000 |"
    assert lines[2] == "| lora | 0.60 (0.50 to 0.70) | 3.0 |"
    assert lines[3] == "| full | 0.90 | 8.5 (8.0 to 9.0) |"
    assert lines[5].startswith("- *class accuracy*: share of samples")


def test_a_cell_may_hold_a_bar_or_a_new_line():
    assert table(["a", "b"], [["x|y", "1\n2"]]).splitlines()[2] == "| x\\|y | 1 2 |"


def test_a_run_without_a_number_leaves_its_cell_to_the_others():
    assert "| lora | 0.50 |" in markdown([row("lora", 0, 0.5), row("lora", 1, None)])
    assert "| full |  |" in markdown([row("lora", 0, 0.5), row("full", 1, None)])


def test_the_page_is_one_file_with_its_pictures_and_marks_the_best(tmp_path):
    import numpy as np

    save_image(tmp_path / "grid.png", np.zeros((4, 4, 3), np.uint8))
    page = html(ROWS, {"lora": tmp_path / "grid.png"}, "a < b", "2 runs of each")
    assert "<h1>a &lt; b</h1>" in page and 'src="data:image/png;base64,' in page and "http" not in page
    rows = [line for line in page.splitlines() if line.startswith("<tr><td>")]
    assert "<td>0.60<small>0.50 to 0.70)" not in rows[0] and "<td>0.60<small>0.50 to 0.70</small></td>" in rows[0]
    assert "<td class=best>3.0</td>" in rows[0] and "<td class=best>0.90</td>" in rows[1]


@pytest.mark.parametrize("rows", [ROWS[:2], [row("a", 0, None, step_seconds=1.0), row("b", 0, None, step_seconds=2.0)]])
def test_nothing_is_best_of_one_row_or_in_a_column_without_a_best(rows):
    assert "class=best" not in html(rows, {}, "t", "p")


@pytest.mark.parametrize(
    "numbers, best",
    [
        ({"a": [0.9, 0.8], "b": [0.7, 0.6]}, "a"),
        ({"a": [0.9, 0.7], "b": [0.75, 0.6]}, None),  # the better mean, within the spread
        ({"a": [0.9, 0.9], "b": [0.9, 0.9]}, None),  # equal
        ({"a": [0.9, 0.8], "b": [0.8, 0.6]}, None),
        ({"a": [0.9], "b": [0.6]}, None),  # nothing says how far two runs of one row are apart
        ({"a": [0.9], "b": [0.6, 0.5]}, None),
        ({"a": [0.9, 0.8], "b": [0.6]}, "a"),
        ({"a": [0.9, 0.8]}, None),
    ],
)
def test_the_best_is_marked_only_beyond_the_spread(numbers, best):
    rows = [row(name, seed, value, kid_x1000=-value) for name in numbers for seed, value in enumerate(numbers[name])]
    for column in columns_of(rows):  # of the accuracy the largest, of the KID the smallest
        assert best_of(group_rows(rows), column) == best

"""The results page: what a verdict is, and that the page says what the files of numbers say."""

import json
import re
from pathlib import Path

import pytest

from evidence.__main__ import NAMES, anchor, main, module_of, overall, page
from evidence.results import HOLDS, NEITHER, REVERSE, Runs, Statement, gains, higher, lower, verdict
from experiments.table import Column, spread

DOCS = Path(__file__).parent.parent.parent / "docs"


@pytest.mark.parametrize(
    "first, second, expected",
    [([3, 4, 5], [0, 1, 2], HOLDS), ([0, 1, 2], [3, 4, 5], REVERSE), ([1, 2, 3], [3, 4, 5], NEITHER)],
)
def test_a_verdict_wants_every_run_of_one_above_every_run_of_the_other(first, second, expected):
    assert verdict(first, second) == expected
    assert lower("it is", second, first) == ("it is", expected, higher("", second, first).numbers)
    assert higher("it is", first, second, ".1f").numbers == f"{sum(first) / 3:.1f} against {sum(second) / 3:.1f}"


def test_a_gain_holds_beyond_its_interval():
    assert gains("", [0.6, 0.7, 0.8], [0.5, 0.6, 0.7]) == ("", HOLDS, "+0.100 +- 0.000")
    assert gains("", [0.5, 0.6, 0.7], [0.6, 0.7, 0.8]).verdict == REVERSE
    assert gains("", [0.6, 0.7, 0.2], [0.5, 0.6, 0.7]).verdict == NEITHER


@pytest.mark.parametrize(
    "verdicts, expected",
    [
        ([HOLDS, HOLDS], "holds"),
        ([HOLDS, REVERSE, NEITHER], "holds in part (1 of 3 statements)"),
        ([NEITHER, NEITHER], "no difference"),
        ([NEITHER, REVERSE], "does not hold"),
    ],
)
def test_the_verdict_on_a_claim_counts_its_statements(verdicts, expected):
    assert overall([Statement("", found, "") for found in verdicts]) == expected


def test_a_spread_is_the_mean_and_the_range():
    assert spread([0.5, 1.0, 0.6]) == "0.70 (0.50 to 1.00)" and spread([2.0], ".0f") == "2"


def test_numbers_are_chosen_by_the_method_or_variant_of_their_rows():
    rows = [{"method": method, "variant": x, "n": n} for method, x, n in (("a", "x", 1), ("a", "y", 2), ("b", "x", 3))]
    assert Runs(rows).values("n", "a") == [1, 2] and Runs(rows, "variant").values("n", "x") == [1, 3]
    statement = Runs(rows).lower("a is less", "n", "a", "b", ".0f")
    assert statement == ("a is less", HOLDS, "2 against 3") and Runs(rows).higher("", "n", "a", "b").verdict == REVERSE
    assert Runs(rows).table({"b": "B", "c": "C"}, [Column("n", "N", ".0f")]).splitlines()[2:] == [
        "| B | 3 |",
        "| C |  |",
    ]


def test_the_page_is_made_of_the_files_beside_it():
    assert (DOCS / "evidence.md").read_text() == page(DOCS / "evidence")


def test_the_key_of_a_variant_in_older_files_is_read(tmp_path):
    text = (DOCS / "evidence" / "few_steps.json").read_text()
    (tmp_path / "few_steps.json").write_text(text.replace('"variant":', '"way":'))
    older = page(tmp_path)
    (tmp_path / "few_steps.json").write_text(text.replace('"way":', '"variant":'))
    assert page(tmp_path) == older and "## Distillation (LCM)" in older


def test_every_row_of_the_summary_links_to_its_section_which_has_its_verdict_first():
    text = page(DOCS / "evidence")
    sections = dict(re.findall(r"^## (.+)\n\n(.+)$", text, re.M))
    rows = re.findall(r"^\| \[(.+?)\]\(#(.+?)\) \| (.+?) \| (.+?) \| .+ \|$", text, re.M)
    assert len(rows) == len(NAMES) == len(sections)
    for title, link, claim, found in rows:
        assert link == anchor(title) and sections[title] == f"Verdict: **{found}**." and f"\nClaim: *{claim}*\n" in text
    assert anchor("Distillation (LCM)") == "distillation-lcm"


@pytest.mark.parametrize("name", NAMES)
def test_every_claim_says_who_claimed_it_and_has_its_parts(name):
    module = module_of(name)
    claim, source = module.__doc__.split("\n\n")[:2]
    assert "\n" not in claim and "Here:" in source and module.numbers and module.result
    assert json.loads((DOCS / "evidence" / f"{name}.json").read_text())["numbers"]


def test_unknown_claims():
    with pytest.raises(ValueError, match="--claim must be one of superclass, composition, .*, found 'start'"):
        main(["--claim", "start"])

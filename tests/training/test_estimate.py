"""What a dry run expects of the whole run: closed sums, and units that fit."""

import pytest

from training import estimate as estimate_module
from training.estimate import DryRun, estimate, smaller, span

VALUES = {"steps": 100, "sample_every": 40, "save_every": 50, "batch": 8, "accumulate": 1, "ema": 0.9, "count": 4,
          "sample_steps": 50, "measure": 20, "keep": "best"}  # fmt: skip
SECONDS = {"start": 1.0, "step": 2.0, "checkpoint": 0.5, "evaluation": 0.1, "result": 3.0}
DRY = DryRun(SECONDS, 1.0, 3.0, 4_000_000, 1_000_000, 500_000, 5, 5)


def test_the_sums_are_those_of_the_parts():
    text = estimate(VALUES, DRY)
    sampling = 0.1 * 50 / 2  # one sample of each of five columns, in 50 steps and not 2, as passes are slow here
    parts = [200, 4 * 4 * sampling, 2 * 0.5, 1 + 3 + 100 * sampling / 5]
    for seconds, name in zip(parts, ("100 steps", "4 evaluations", "checkpoints", "start and end")):
        assert f"{name} {span(seconds)}" in text
    assert f"about {span(sum(parts))} (" in text
    assert "peak memory: 3.00 GiB" in text and "seconds a step: 2\n" in text
    assert "on disk: 9.0 MB (two checkpoints of 4.0 MB, the result 1.0 MB)" in text
    assert "--batch 4 --accumulate 2 saves about 1.00 GiB" in text
    assert "--ema 0 saves 0.5 MB of memory and 1.0 MB on disk" in text and "--keep last saves" in text


def test_epochs_are_steps_of_the_images():
    assert "13 steps 26 s" in estimate(VALUES | {"epochs": 2}, DRY._replace(images=50))


def test_the_steps_of_a_sampler_are_added_to_what_an_evaluation_takes_besides():
    """0.024 s for a step of 8 images: a pass of one is 0.001 s, and 48 more steps of 5 guided samples 0.48 s."""
    text = estimate(VALUES | {"measure": 0}, DRY._replace(seconds=SECONDS | {"step": 0.024, "evaluation": 1.0}))
    assert f"4 evaluations {span(4 * 4 * 1.48)}" in text


def test_levers_that_would_save_nothing_are_not_named():
    text = estimate(VALUES | {"ema": 0, "keep": "last", "batch": 1}, DRY._replace(peak_gib=None))
    assert "saves" not in text and "peak memory: unknown here" in text


def test_what_compiling_takes_comes_once_and_is_in_no_part(monkeypatch):
    clock, seconds = iter([10.0, 19.0]), {}
    monkeypatch.setattr(estimate_module.time, "monotonic", lambda: next(clock))
    monkeypatch.setattr(estimate_module.WATCH, "total", 1.0)
    with estimate_module.timed(seconds, "step"):
        estimate_module.WATCH.total += 7
    assert seconds == {"step": 2.0}


@pytest.mark.parametrize("seconds, text", [(3.14159, "3.14 s"), (150, "2.5 min"), (7200, "2 h")])
def test_times_have_units_that_fit(seconds, text):
    assert span(seconds) == text


def test_a_dry_run_changes_only_what_a_recipe_reads():
    assert smaller({"count": 4, "steps": 9}) == {"count": 1}

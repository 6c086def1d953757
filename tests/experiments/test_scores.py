"""The logo study's tables: its own numbers in its order, epochs of steps, the best of each run, ranks."""

import json
from pathlib import Path

import pytest

from experiments.scores import Model, best_epochs, best_ranks, markdown, models_of

# De Man, table 3: rate of the UNet, of the text encoder, rank, epoch; normalised, detector, text
TABLE_3 = """
5e-06 1e-4  16  3 0.976 0.710  0.479
5e-05 5e-06 16 21 0.963 0.700  0.479
5e-06 1e-4  16  6 0.926 0.7255 0.417
5e-05 5e-06  8 24 0.895 0.694  0.417
1e-4  1e-4   8  3 0.889 0.622  0.479
5e-05 5e-06 32 18 0.875 0.696  0.396
5e-05 5e-06 64 27 0.870 0.690  0.396
5e-06 5e-05  4 18 0.861 0.703  0.375
5e-06 1e-4  16  9 0.853 0.608  0.458
5e-06 5e-05 16  6 0.833 0.654  0.396
"""


def write_run(run, looks, images=49, **settings):
    """A run's log and settings. looks: {step: (detector, text)}."""
    run.mkdir(parents=True)
    lines = [{"step": 1, "loss": 1.0}] + [
        {"step": s, "images": images, "scores": {"detector": d, "text": t, "combined": (d + t) / 2}}
        for s, (d, t) in looks.items()
    ]
    (run / "log.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    values = {"batch": 1, "accumulate": 1} | settings
    (run / "config.toml").write_text("".join(f"{name} = {value}\n" for name, value in values.items()))


def test_the_normalised_scores_of_the_study_come_out(tmp_path):
    """With one more model, the worst in both scores: the study's are of all its models, and their least is not told."""
    rows, looks = [line.split() for line in TABLE_3.strip().splitlines()], {}
    for unet, text, rank, epoch, _, detector, read in rows:
        looks.setdefault((unet, text, rank), {})[49 * int(epoch)] = float(detector), float(read)
    runs = {tmp_path / "-".join(key): dict(zip(("lr", "text_lr", "rank"), key)) for key in looks}
    for run, of_run in zip(runs, looks.values()):
        write_run(run, of_run)
    write_run(tmp_path / "worst", {147: (0.2175, 0.0)})
    models = models_of(runs | {tmp_path / "worst": {"lr": "1", "text_lr": "1", "rank": "4"}})
    ranked = sorted(models, key=lambda model: -model.normalised)[:10]
    assert [(*model.values.values(), round(model.epoch)) for model in ranked] == [(*r[:3], int(r[3])) for r in rows]
    assert [model.normalised for model in ranked] == pytest.approx([float(row[4]) for row in rows], abs=0.013)
    ranks = best_ranks(models).splitlines()
    assert ranks[2].startswith("| lr 5e-06, text_lr 1e-4 | 16 (0.9") and ranks[3].count("(0.9") == 2


def test_step_0_is_no_model_and_epochs_count_whole_batches(tmp_path):
    write_run(tmp_path / "a", {0: (1.0, 1.0), 12: (0.8, 0.5)}, images=48, batch=4, accumulate=2)
    [model] = models_of({tmp_path / "a": {"method": "lora", "lr": 0.1}, tmp_path / "waiting": {"method": "lora"}})
    assert (model.method, model.values, model.step, model.epoch) == ("lora", {"lr": 0.1}, 12, 2.0)
    assert model.combined == 0.65 and model.normalised == 0  # nothing to be better than


def model(run, step, detector, text, method="", **values):
    return Model(Path(run), method, values, step, step / 10, detector, text, (detector + text) / 2, detector)


def test_a_run_stands_with_its_best_epoch_the_earliest_of_equal_ones():
    models = [model("a", 1, 0.2, 0), model("a", 2, 0.8, 0), model("a", 3, 0.8, 0), model("b", 1, 0.9, 0)]
    assert [(m.run.name, m.step) for m in best_epochs(models, "combined")] == [("b", 1), ("a", 2)]


def test_the_tables_have_three_runs_of_each_method_the_best_method_first():
    models = [model(f"a{i}", 1, i / 10, 0, "a", lr=i) for i in range(4)] + [model("b", 1, 0.9, 1, "b", lr=9, rank=4)]
    lines = markdown(models).splitlines()
    assert [line.split(" | ")[:2] for line in lines[4:8]] == [
        ["| b", "lr 9, rank 4"],
        *(["| a", f"lr {i}"] for i in (3, 2, 1)),
    ]
    assert lines[4].endswith("| 1 | 0.1 | 0.950 | 0.900 | 1.000 |")
    assert "# The best models of a by the normalised score" in lines and lines.count("| lr 9 | 4 (0.90) |  |  |") == 1
    assert sum(line.startswith("# Ranks") for line in lines) == 1


def test_a_log_without_scores_has_no_models(tmp_path):
    write_run(tmp_path / "a", {})
    assert models_of({tmp_path / "a": {}}) == []

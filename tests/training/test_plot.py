"""The picture of a run: the corruption stage, the best evaluation, and a panel of samples where some were measured."""

import json

import pytest
from PIL import Image

from training.monitor import measurements
from training.plot import plot, samples


def planted(run, fidelity):
    lines = [{"step": i + 1, "loss": 1.0} for i in range(50)]
    lines += [
        {
            "step": 10 * i,
            "feature_similarity": f,
            "feature_similarity_deviation": 0.01,
            "noise_residual": 2 - f,
            "noise_residual_deviation": 0.01,
        }
        for i, f in enumerate(fidelity)
    ]
    run.mkdir()
    (run / "log.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    return run


def test_the_picture_marks_the_stage_and_the_best_evaluation(tmp_path):
    Figure = pytest.importorskip("matplotlib.figure").Figure
    for name, curve, shaded, ringed in (
        ("dip", [0.5, 0.8, 0.6, 0.5, 0.7, 0.8], [(20, 40)], 10),
        ("none", [0.5, 0.6, 0.7, 0.8, 0.9, 0.95], [], 50),
    ):
        run = planted(tmp_path / name, curve)
        axes = Figure().subplots()
        samples(axes, *measurements(run))
        assert [(patch.get_x(), patch.get_x() + patch.get_width()) for patch in axes.patches] == shaded
        assert (ringed,) in [tuple(line.get_xdata()) for line in axes.lines]


def test_the_panel_of_samples_is_only_there_where_some_were_measured(tmp_path, capsys):
    pytest.importorskip("matplotlib")
    heights = []
    for name, curve in (("none", []), ("dip", [0.5, 0.8, 0.6, 0.5, 0.7, 0.8])):
        plot(planted(tmp_path / name, curve))
        heights.append(Image.open(tmp_path / name / "loss.png").height)
    assert heights[1] > heights[0]
    told = capsys.readouterr().out.splitlines()
    assert told == ["corruption stage: from step 20 to 40 the samples are noisy and unlike the images"]

"""The page of a run: well-formed, its names escaped, its links there, right for a run of any length."""

import json
import re
from urllib.parse import unquote
from xml.etree import ElementTree

import numpy as np
import pytest

from data.generated import makers
from data.output.grid import save_image
from data.transforms import to_tensor, to_uint8
from metrics.statistics.nearest import turned
from training.page import beside_nearest, write_page
from training.page.chart import Chart, thinned
from training.page.nearest import GAP, SIDE
from training.page.run import page

ODD = "a <b> & \"c\" 'd'"


def run_folder(tmp_path, steps, looks=(), numbers=None, **settings):
    """A run folder as train.py leaves it, with odd names everywhere."""
    run = tmp_path / f"run {ODD.replace('/', '')} %20#?"
    (run / "samples").mkdir(parents=True)
    values = {"recipe": "class_label", "model": "tiny-dit", "data": ODD, "adapter": [ODD, "lora:rank=2"], "steps": 9}
    text = "".join(f"{key} = {json.dumps(value)}\n" for key, value in (values | settings).items())
    (run / "config.toml").write_text(text)
    lines = []
    for step in range(steps + 1):
        if step in looks:
            similarity = {"feature_similarity": 0.5 + 0.01 * step, "noise_residual": 1.0}
            deviations = {"feature_similarity_deviation": 0.01, "noise_residual_deviation": 0.1}
            lines.append({"step": step, "val": 0.2} | similarity | deviations)
            save_image(run / "samples" / f"step_{step:06d}.png", np.zeros((4, 4, 3), np.uint8))
        if step < steps:
            lines.append({"step": step + 1, "loss": 0.5 / (step + 1)})
    (run / "log.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    if numbers:
        (run / "metrics.json").write_text(json.dumps(numbers))
    return run


def parsed(run):
    """The page as XML, after a look at what it must not hold."""
    write_page(run)
    text = (run / "index.html").read_text(encoding="utf-8")
    assert not re.search(r"<script|https?:|@import|url\(", text)
    return ElementTree.fromstring(text.removeprefix("<!doctype html>\n"))


def test_it_is_well_formed_and_every_name_is_escaped(tmp_path):
    numbers = {
        "class_accuracy": 0.5,
        "copies": 0.3,
        "class_accuracy_by_class": {ODD: 0.5},
        "by_class": {ODD: {"fid": 1}},
    }
    run = run_folder(tmp_path, 6, (0, 3, 6), numbers, template=ODD)
    root = parsed(run)
    text = "".join(root.itertext())
    assert root.find("head/title").text == run.name and text.count(ODD) >= 6
    assert not root.findall(".//b") and "0.30 of the samples are very near a training image" in text


def test_every_link_leads_to_a_file_and_every_look_is_shown(tmp_path):
    run = run_folder(tmp_path, 6, (0, 3, 6))
    for name in ("grid.png", "nearest.png"):
        save_image(run / name, np.zeros((4, 4, 3), np.uint8))
    root = parsed(run)
    links = [unquote(place) for node in root.iter() for key in ("href", "src") if (place := node.get(key))]
    assert all((run / link).is_file() for link in links)
    assert {"samples/step_000000.png", "samples/step_000006.png", "nearest.png", "grid.png", "log.jsonl"} <= set(links)
    assert all(image.get("alt") for image in root.iter("img"))


@pytest.mark.parametrize("steps, looks", [(0, ()), (0, (0,)), (1, (0, 1)), (2, ())])
def test_a_run_that_has_hardly_begun_has_a_page_too(tmp_path, steps, looks):
    root = parsed(run_folder(tmp_path, steps, looks))
    assert f"{steps} of 9 steps: the run goes on" in "".join(root.itertext())
    assert len(root.findall(".//svg")) == (steps > 1) + (len(looks) > 1)


def test_only_what_differs_from_the_defaults_is_unfolded(tmp_path):
    run = run_folder(tmp_path, 2, lr=0.003, seed=7)  # lr has its default
    first, everything = parsed(run).findall(".//table")
    names = [row[0].text for row in first.iter("tr")]
    assert "seed" in names and "lr" not in names
    assert {"seed", "lr"} <= {row[0].text for row in everything.iter("tr")}


def test_the_verdict_says_when_the_best_look_was_not_the_last(tmp_path):
    run = run_folder(tmp_path, 6, (0, 3), measure=20)
    assert "most like the images at step 3, of 2 looks" in page(run) and "--keep best" not in page(run)
    with open(run / "log.jsonl", "a") as log:
        numbers = {"feature_similarity": 0.1, "feature_similarity_deviation": 0.01, "noise_residual_deviation": 0.1}
        log.write(json.dumps({"step": 6, "val": 0.4, "noise_residual": 1.0} | numbers) + "\n")
        log.write(json.dumps({"step": 6, "trained": 1, "total": 2}) + "\n")
    text = page(run)
    assert "most like the images at step 3, of 3 looks" in text and "--keep best would leave those" in text
    assert "6 of 9 steps.</li>" in text and "No distances were measured" in text


def test_a_chart_holds_its_points():
    points = [(step, value) for step, value in enumerate((0.9, 0.01, 3.0))]
    for logarithmic in (True, False):
        chart = Chart(points, logarithmic)
        places = re.findall(r"([\d.]+),([\d.]+)", chart.line(points, "mean"))
        assert len(places) == 3 and all(0 <= float(x) <= 720 and 0 <= float(y) <= 280 for x, y in places)
        assert float(places[1][1]) > float(places[0][1]) > float(places[2][1])  # the smallest lies lowest
        assert 2 <= len(chart.ticks()) <= 9 and all(0.005 < tick < 4 or tick == 0 for tick in chart.ticks())
    assert Chart([(0, 1.0)]).ticks()  # a single value has an axis too


def test_a_long_line_is_thinned_and_keeps_its_end():
    points = [(float(i), 1.0) for i in range(5001)]
    assert len(thinned(points)) <= 601 and thinned(points)[-1] == points[-1] and thinned(points[:9]) == points[:9]


def test_a_copy_stands_beside_its_original_in_any_view():
    images = np.stack(
        [makers.image("hazelnut", state, "few", i, 64)[0] for state in ("good", "print") for i in range(3)]
    )
    copies = np.stack([images[4], to_uint8(turned(to_tensor(images[[1]]))[6])])  # as it is; mirrored and turned
    pairs = beside_nearest(images, "cpu")(copies)
    assert pairs.shape == (2, 64, 2 * 64 + GAP, 3)
    for pair, copy in zip(pairs, copies):
        assert (pair[:, :64] == copy).all() and (pair[:, -64:] == copy).all()


def test_large_images_are_shown_small():
    images = np.zeros((2, 300, 300, 3), np.uint8)
    assert beside_nearest(images, "cpu")(images).shape == (2, SIDE, 2 * SIDE + GAP, 3)

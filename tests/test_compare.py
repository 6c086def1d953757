"""A whole comparison on the tiny models, which goes on where it was stopped, and the command line."""

import json
import subprocess

import pytest

import compare
from data import load
from data.output.grid import save_image
from data.transforms import Transform
from experiments import run as runs
from tests.plans import write_plan


def test_methods_and_variants_are_trained_sampled_measured_and_not_done_again(tiny, tmp_path, monkeypatch):
    path = write_plan(
        tmp_path,
        tiny,
        """
        [methods.biases]
        adapter = ["bitfit"]
        [methods.fast]
        recipe = "consistency"
        init = ["{biases}/adapter.safetensors"]
        adapter = ["lora:rank=2"]
        [variants.plain]
        [variants.weak]
        guidance = 1.5
        of = ["biases"]
        """,
    )
    out = tmp_path / "out"
    compare.main([str(path), "--out", str(out)])
    rows = json.loads((out / "numbers.json").read_text())
    assert [(row["method"], row["variant"], row["seed"]) for row in rows] == [
        ("biases", "plain", 0),
        ("biases", "weak", 0),
        ("biases", "plain", 1),
        ("biases", "weak", 1),
        ("fast", "plain", 0),
        ("fast", "plain", 1),
    ]
    assert all(
        row["trained"] > 0
        and row["peak_gib"] > 0
        and row["megabytes"] > 0
        and row["step_seconds"] >= 0
        and row["picture_seconds"] > 0
        and row["minutes"] >= 0
        and row["samples"] == 14
        and row["real"] == 28
        and row["train"] == 14
        for row in rows
    )
    assert rows[0]["kid_x1000"] != rows[1]["kid_x1000"] and rows[0]["kid_x1000"] != rows[2]["kid_x1000"]
    assert "| biases, weak |" in (out / "table.md").read_text()
    assert (out / "index.html").read_text().count("data:image/png;base64") == 3
    monkeypatch.setattr(subprocess, "Popen", lambda *args, **more: pytest.fail("trained again"))
    monkeypatch.setattr(runs.sample, "main", lambda argv: pytest.fail("sampled again"))
    compare.main([str(path), "--out", str(out)])
    assert json.loads((out / "numbers.json").read_text()) == rows
    path.write_text(path.read_text().replace("steps = 2\nbatch", "steps = 3\nbatch"))
    with pytest.raises(ValueError, match="begun with other settings"):
        compare.main([str(path), "--out", str(out)])


def test_samples_of_a_prompt_are_compared_with_images_of_its_class_and_photographs_by_patches(tiny_sd, tmp_path):
    path = tmp_path / "plan.toml"
    path.write_text(f"""
        seeds = 1
        real = "generated:pill/test/1"
        [train]
        model = "{tiny_sd}"
        recipe = "text"
        data = "generated:pill/few/1"
        adapter = ["unet.lora:rank=2"]
        steps = 1
        batch = 2
        count = 1
        sample_steps = 2
        precision = "fp32"
        cache = ""
        [sample]
        steps = 2
        count = 2
        precision = "fp32"
        [methods.lora]
        [styles]
        network = "tiny-features"
        flawless = "*/good"
        damaged = "*"
        [scorers]
        brightness = "{tmp_path}/mine.py:bright"
        [classes_of_prompts]
        "a photo of a flawless pill" = "pill/good"
        "a pill with a hole" = "pill/hole"
        """)
    (tmp_path / "mine.py").write_text("def bright(images):\n    return images.mean((1, 2, 3)) / 255\n")
    compare.main([str(path), "--out", str(tmp_path / "out")])
    assert "| brightness, bright |" in (tmp_path / "out" / "table.md").read_text()
    (row,) = json.loads((tmp_path / "out" / "numbers.json").read_text())
    assert row["samples"] == 4 and set(row["class_accuracy_by_class"]) == {"pill/good", "pill/hole"}
    assert sum(row["styles"].values()) == 1 and row["styles"]["other"] == 0
    assert "| flawless | damaged | other | brightness, bright |" in (tmp_path / "out" / "table.md").read_text()
    assert 0 < row["scores"]["brightness, bright"] < 1 and row["network"] == "tiny-features"
    images = load("generated:pill/test/2", Transform(64))
    for i, image in enumerate(images.pixels):
        save_image(tmp_path / "photos" / images.classes[images.labels[i]] / f"{i}.png", image)
    path.write_text(path.read_text().replace('"generated:pill/test/1"', f'"{tmp_path}/photos"'))
    compare.main([str(path), "--out", str(tmp_path / "out")])
    (row,) = json.loads((tmp_path / "out" / "numbers.json").read_text())
    assert row["network"] == "patches, no network" and row["patch_distance"] > 0 and 0 <= row["nearest_class"] <= 1
    assert "measured in patches, no network" in (tmp_path / "out" / "index.html").read_text()
    path.write_text(path.read_text().replace('= "pill/hole"', '= "pill/bump"'))
    with pytest.raises(ValueError, match="classes_of_prompts: 'pill/bump' is no class of .*photos"):
        compare.main([str(path), "--out", str(tmp_path / "out")])


def test_a_run_that_fails_ends_the_comparison_with_its_last_line(tiny, tmp_path):
    path = write_plan(tmp_path, tiny, '[methods.a]\nadapter = ["lora:rank=0"]')
    with pytest.raises(ValueError, match=r"a-0: error: .*rank.* \(all that it printed: .*a-0.log\)"):
        compare.main([str(path), "--out", str(tmp_path / "out")])


def test_a_comparison_needs_a_config():
    with pytest.raises(ValueError, match="name a config"):
        compare.main(["--seeds", "2"])

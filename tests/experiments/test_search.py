"""A grid of runs: what is refused, what a run's files say, and a whole search that resumes, fails and is stopped."""

import json
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

import adapters
import train
from config import read_toml
from experiments import search
from experiments.log import summary
from experiments.run import write_settings
from recipes.settings import all_parts, check

ROOT = Path(__file__).parent.parent.parent


def config(tiny, folder, lists, **more):
    """CONFIG.toml of a search in folder/out: runs of 2 steps of the tiny models."""
    settings = dict(
        model=str(tiny / "dit.safetensors"),
        vae=str(tiny / "vae.safetensors"),
        steps=2,
        batch=2,
        warmup=0,
        data="generated:hazelnut/few/1",
        val="generated:hazelnut/val/1",
        save_every=1,
        sample_every=2,
        sample_steps=2,
        count=1,
        measure=0,
        precision="fp32",
        cache="",
        adapter=["lora:rank={rank}"],
    )
    path = folder / "grid.toml"
    path.write_text(
        f'out = "{folder / "out"}"\n'
        + "".join(f"{name} = {json.dumps(value)}\n" for name, value in (settings | more).items())
        + lists
    )
    return path


def table(folder):
    head, _, *rows = [
        [cell.strip() for cell in line.strip("|\n").split(" | ")]
        for line in (folder / "out" / "table.md").read_text().splitlines()
    ]
    return [dict(zip(head, row)) for row in rows]


def test_the_combinations_and_their_settings():
    grid = search.combinations({"lr": [1e-6, 1e-4], "rank": [4, 8]})
    assert grid == [{"lr": 1e-6, "rank": 4}, {"lr": 1e-6, "rank": 8}, {"lr": 1e-4, "rank": 4}, {"lr": 1e-4, "rank": 8}]
    base = {"steps": 5, "lr": 1.0, "adapter": ["unet.lora:rank={rank}", "norm"], "template": "a {class}"}
    assert search.settings_of(base, grid[1]) == {
        "steps": 5,
        "lr": 1e-6,
        "adapter": ["unet.lora:rank=8", "norm"],
        "template": "a {class}",
    }
    assert search.name_of(grid[1]) == "lr=1e-06,rank=8"
    assert search.name_of({"adapter": ["unet.lora:rank=4", "norm"]}) == "adapter=unet.lora-rank=4+norm"


@pytest.mark.parametrize(
    "lists, more, words",
    [
        ("[search]\nlearning = [1]\nrank = [2]", {}, "unknown key 'learning'"),
        ("[search]\nrank = [2]", {"stepz": 3}, "unknown key 'stepz'"),
        ("[search]\nrank = [2]\nout = ['a']", {}, "unknown key 'out'"),
        ("[search]\nrank = []", {}, r"list of at least one value, found {'rank': \[\]}"),
        ("[search]\nrank = 2", {}, "list of at least one value, found {'rank': 2}"),
        ("[search]\nlr = [1.0]", {}, r"\{rank\} stands in a setting and \[search\] has no such name"),
        ("[search]", {}, "list of at least one value, found {}"),
        ("", {}, "list of at least one value, found {}"),
        ("[search]\nrank = [2, 2]", {}, "2 combinations have only 1 different names"),
        ("[search", {}, "at line|at end"),
    ],
)
def test_a_wrong_search_is_one_sentence(tmp_path, lists, more, words):
    with pytest.raises(ValueError, match=words):
        search.main([str(config(tmp_path, tmp_path, lists, **more))])
    assert not (tmp_path / "out").exists()


def test_the_row_of_a_run(tmp_path):
    """Resumed after step 60: 6 s of the first try and 4 s of the second; the loss is the mean of steps 51 to 100."""
    run = tmp_path / "run"
    run.mkdir()
    lines = [{"step": 0, "val": 0.1}, {"step": 60, "val": 0.5}, {"step": 100, "val": 0.7}]
    lines += [
        {"step": step, "loss": float(step), "seconds": step / 10 if step <= 60 else (step - 60) / 10}
        for step in range(1, 101)
    ]
    (run / "log.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines) + '{"step": 10')
    (run / "metrics.json").write_text('{"network": "tiny-features", "kid": 0.25, "by_class": {"a": 1}, "samples": 10}')
    assert summary(run) == {
        "state of run": "begun",
        "seconds trained": 10.0,
        "train loss": 75.5,
        "best val": 0.5,
        "kid": 0.25,
        "samples": 10,
    }
    (run / "adapter.safetensors").touch()
    assert search.table_of({run: {"lr": 1e-6}, tmp_path / "next": {"lr": 1e-4}}) == (
        "| lr | state of run | seconds trained | train loss | best val | kid | samples |\n"
        "| --- | ---: | ---: | ---: | ---: | ---: | ---: |\n"
        "| 1e-06 | done | 10 | 75.5 | 0.5 | 0.25 | 10 |\n"
        "| 0.0001 | waiting | 0 |  |  |  |  |\n"
    )


def test_a_search_resumes_fails_goes_on_and_skips(tiny, tmp_path):
    """rank 2 was killed after its first step, rank 0 is refused, rank 3 is trained all the same."""
    path, out = config(tiny, tmp_path, "[search]\nrank = [2, 0, 3]\n"), tmp_path / "out"
    [grid], _ = search.read_search(path)
    write_settings(out / "rank=2", search.settings_of(grid.settings, {"rank": 2}))
    one_step = train.one_step
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(
            train,
            "one_step",
            lambda options, settings, step, *rest: (
                one_step(options, settings, step, *rest) if step < 1 else (_ for _ in ()).throw(KeyboardInterrupt)
            ),
        )
        with pytest.raises(KeyboardInterrupt):
            train.main([str(out / "rank=2.toml"), "--out", str(out / "rank=2")])
    first = [line for line in (out / "rank=2" / "log.jsonl").read_text().splitlines() if "loss" in line]
    search.main([str(path)])
    rows = table(tmp_path)
    assert [row["rank"] for row in rows] == ["2", "0", "3"]
    assert [row["state of run"] for row in rows[::2]] == ["done", "done"]
    assert "rank" in rows[1]["state of run"] and rows[1]["state of run"].startswith("error: ")
    assert all(float(row[name]) > 0 for row in rows[::2] for name in ("seconds trained", "train loss", "best val"))
    log = (out / "rank=2" / "log.jsonl").read_text().splitlines()
    assert first[0] in log and [json.loads(line)["step"] for line in log if "loss" in line] == [1, 2]

    files = {run: (run / "adapter.safetensors").stat().st_mtime_ns for run in (out / "rank=2", out / "rank=3")}
    path.write_text(path.read_text().replace("[2, 0, 3]", "[3, 2]"))
    search.main([str(path)])
    assert [row["rank"] for row in table(tmp_path)] == ["3", "2"]
    assert files == {run: (run / "adapter.safetensors").stat().st_mtime_ns for run in files}
    path.write_text(path.read_text().replace("steps = 2", "steps = 3", 1))
    with pytest.raises(ValueError, match="begun with other settings"):
        search.main([str(path)])


def test_a_signal_stops_the_run_and_then_the_search(tiny, tmp_path):
    path = config(tiny, tmp_path, "[search]\nrank = [2, 3]\n", steps=100_000, sample_every=100_000, save_every=100_000)
    process = subprocess.Popen(
        [sys.executable, "-m", "experiments.search", str(path)], cwd=ROOT, env=os.environ | {"OMP_NUM_THREADS": "1"}
    )
    log = tmp_path / "out" / "rank=2" / "log.jsonl"
    deadline = time.monotonic() + 300
    while not (log.exists() and log.read_text().count("loss") > 3) and time.monotonic() < deadline:
        time.sleep(0.1)
    process.send_signal(signal.SIGINT)
    assert process.wait(timeout=300) == 128 + signal.SIGINT
    assert (tmp_path / "out" / "rank=2" / "checkpoint" / "state.safetensors").is_file()
    assert [row["state of run"] for row in table(tmp_path)] == ["begun", "waiting"]


def test_the_old_name_of_the_command_gives_notice_and_works():
    done = subprocess.run([sys.executable, "-m", "recipes.search"], cwd=ROOT, capture_output=True, text=True)
    notice, usage = done.stderr.split("\n", 1)
    assert notice.startswith("recipes.search is now called experiments.search") and usage.startswith("Grid search: ")


@pytest.mark.parametrize("path", sorted((ROOT / "configs").glob("search_*.toml")), ids=lambda path: path.name)
def test_every_run_of_the_searches_that_come_along_is_a_config(path, tmp_path):
    grids, _ = search.read_search(path)
    for grid in grids:
        for values in search.combinations(grid.lists):
            write_settings(tmp_path / "run", search.settings_of(grid.settings, values))
            stored = read_toml(tmp_path / "run.toml", all_parts())
            check(stored)
            assert stored["lr"] == values["lr"] and stored.get("text_lr") == values.get("text_lr")
            for spec in stored.get("adapter", []):
                assert "{" not in spec and adapters.parse(adapters.split(spec)[1])
    if path.stem == "search_logo_sd15":
        assert [len(search.combinations(grid.lists)) for grid in grids] == [3, 125, 6]
        assert all(len(grid.settings["prompts"]) == 6 and grid.settings["count"] == 8 for grid in grids)


def methods(folder, text):
    """A file of a search of several methods."""
    path = folder / "methods.toml"
    path.write_text(text)
    return path


def test_methods_take_what_they_read_of_the_settings_of_all(tmp_path):
    grids, out = search.read_search(
        methods(
            tmp_path,
            """
            out = "there"
            steps = 3
            text_lr = 0.1
            [methods.a]
            adapter = ["lora:rank={rank}"]
            [methods.a.search]
            rank = [2, 3]
            [methods.b]
            recipe = "text"
            steps = 4
            [methods.b.search]
            lr = [0.1]
            """,
        )
    )
    assert out == Path("there").resolve()
    assert grids[0] == ("a", {"steps": 3, "adapter": ["lora:rank={rank}"]}, {"rank": [2, 3]})
    assert grids[1] == ("b", {"steps": 4, "text_lr": 0.1, "recipe": "text"}, {"lr": [0.1]})
    assert list(grids[0].runs(out)) == [out / "a" / "rank=2", out / "a" / "rank=3"]


@pytest.mark.parametrize(
    "text, words",
    [
        ("methods = 1", "methods must be tables"),
        ("[methods.a]\nsteps = 2", r"\[methods.a.search\] must give each name a list"),
        ("[search]\nlr = [1.0]\n[methods.a.search]\nlr = [1.0]", "each has its own"),
        ("stepz = 1\n[methods.a.search]\nlr = [1.0]", "unknown key 'stepz', which no method reads"),
        ("[methods.a]\nstepz = 1\n[methods.a.search]\nlr = [1.0]", "unknown key 'stepz'"),
        ("[methods.a]\nmodel = 'tiny-sd'\n[methods.a.search]\nlr = [1.0]", "class_label trains a DiT or a new DiT"),
        ("[methods.a]\nrecipe = ['text']\n[methods.a.search]\nlr = [1.0]", r"recipe must be a text, found \['text'\]"),
        ("model = 3\n[methods.a.search]\nlr = [1.0]", "model must be a text, found 3"),
    ],
)
def test_wrong_methods_are_one_sentence(tmp_path, text, words):
    path = methods(tmp_path, text)
    with pytest.raises(ValueError, match=f"^{re.escape(str(path))}: .*{words}"):
        search.read_search(path)


def test_a_search_of_two_methods_is_scored_at_every_look(tiny_sd, tmp_path):
    """The score of a look is the number of looks so far; the reader finds the word in the first prompt alone."""
    (tmp_path / "scorer.py").write_text(
        "import numpy as np\nlooks = []\n"
        "def score(images):\n    looks.append(len(images))\n"
        "    return {'detector': np.full(len(images), 0.7 + len(looks) / 100), 'text': np.arange(len(images)) < 1}\n"
    )
    path = methods(
        tmp_path,
        f"""
        out = "{tmp_path / "out"}"
        model = "{tiny_sd}"
        data = "generated:hugo_on_black/few/1"
        scorer = "{tmp_path / "scorer.py"}:score"
        prompts = ["a <logo>", "a hat"]
        count = 1
        steps = 4
        batch = 2
        sample_every = 2
        sample_steps = 2
        warmup = 0
        cache = ""
        precision = "fp32"
        [methods.dreambooth]
        recipe = "dreambooth"
        prior_weight = 0.0
        adapter = ["unet.full"]
        [methods.dreambooth.search]
        lr = [1e-4]
        [methods.word]
        recipe = "textual_inversion"
        token = "<logo>"
        token_init = "a"
        [methods.word.search]
        lr = [1e-3]
        """,
    )
    search.main([str(path)])
    text = (tmp_path / "out" / "scores.md").read_text()
    for method, lr in (("dreambooth", "0.0001"), ("word", "0.001")):
        assert f"| {method} | lr {lr} | 4 | 2 | 0.615 | 0.730 | 0.500 |" in text
    assert text.count("| lr 0.001 | 2 | 1 | 0.000 | 0.720 | 0.500 |") == 1
    rows = table(tmp_path)
    assert [row["best epoch"] for row in rows] == ["2", "2"] and rows[0]["combined"] == "0.615"
    assert [row["method"] for row in rows] == ["dreambooth", "word"] and rows[0]["normalised"] == "0.5"
